// One count every cycle, added to a sum STAGES cycles later: of differing bits, or with ONES of
// ones. Planes come by Horner's rule: `shift` doubles what was summed so far. Sums of differing
// bits need 31 bits, for they count twice in an accumulator of 32. With `looks_up` the count is one
// of two numbers.
module dot #(
    parameter DK = 64,
    parameter STAGES = 1,  // 2 puts registers into the popcount
    parameter ONES = 0,
    parameter WIDTH = 31
) (
    input  wire             clk,
    input  wire [DK-1:0]    act,
    input  wire [DK-1:0]    weight,
    input  wire             counts,  // ONES only: whether these ones count; with the count
    input  wire             looks_up,
    input  wire             choice,  // with the count, like `numbers`
    input  wire [17:0]      numbers, // the first one lowest
    input  wire             valid,   // of the words STAGES cycles before, like `first` and `shift`
    input  wire             first,
    input  wire             shift,
    output reg  [WIDTH-1:0] sum
);
    localparam BITS = $clog2(DK + 1);

    wire [BITS-1:0] count;
    wire [8:0] counted = {{9-BITS{1'b0}}, count};
    reg [8:0] count1;

    generate
        if (ONES) begin : words
            popcount #(.WIDTH(DK), .FIRST(6), .STAGES(STAGES)) popcount (
                .clk(clk), .bits(act), .count(count)
            );
            always @(posedge clk) count1 <= counts ? counted : 9'd0;
            wire unused = &{1'b0, weight, looks_up, choice, numbers};
        end else begin : pairs
            popcount #(.WIDTH(DK), .FIRST(3), .STAGES(STAGES), .REGISTERED(6)) popcount (
                .clk(clk), .bits(act ^ weight), .count(count)
            );
            wire [8:0] number = choice ? numbers[17:9] : numbers[8:0];
            always @(posedge clk) count1 <= looks_up ? number : counted;
            wire unused = counts;
        end
    endgenerate

    // The count is the left operand: carries are then wires, not LUTs.
    always @(posedge clk) if (valid) sum <= {{WIDTH-9{1'b0}}, count1}
        + (first ? {WIDTH{1'b0}} : shift ? {sum[WIDTH-2:0], 1'b0} : sum);
endmodule
