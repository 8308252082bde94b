// One count a cycle, added to a sum a cycle later. Planes come by Horner's rule: `shift` doubles what
// was summed so far. Sums need 31 bits, for they count twice in an accumulator of 32.
module dot #(
    parameter FIRST = 3,  // of the popcount: 3 where `bits` are differences, 6 where they are words
    parameter WIDTH = 31
) (
    input  wire             clk,
    input  wire [63:0]      bits,
    input  wire             counts,  // these bits
    input  wire             valid,   // of the bits a cycle before, like `first` and `shift`
    input  wire             first,
    input  wire             shift,
    output reg  [WIDTH-1:0] sum
);
    wire [6:0] count;
    reg [6:0] count1;

    popcount #(.WIDTH(64), .FIRST(FIRST)) popcount (.bits(bits), .count(count));

    always @(posedge clk) begin
        count1 <= counts ? count : 7'd0;
        // The count is the left operand: carries are then wires, not LUTs.
        if (valid) sum <= {{WIDTH-7{1'b0}}, count1}
            + (first ? {WIDTH{1'b0}} : shift ? {sum[WIDTH-2:0], 1'b0} : sum);
    end
endmodule
