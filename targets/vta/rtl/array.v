// DM x DN units that count differing bits, and a row of DN that count ones. Planes come by Horner's
// rule: `shift` doubles what was summed so far.
module array #(
    parameter DM = 8,
    parameter DN = 8,
    parameter DK = 64,
    parameter STAGES = 1
) (
    input  wire                clk,
    input  wire                reset,
    input  wire                valid,  // of the operands, with its flags
    input  wire                first,
    input  wire                shift,
    input  wire                ones,
    input  wire                last,
    input  wire [DN*DK-1:0]    act,
    input  wire [DM*DK-1:0]    weight,
    input  wire                looks_up,  // numbers of the weights instead of differing bits
    // Which of two numbers, of channel i and lane j at j * DM + i; STAGES - 1 cycles behind act.
    input  wire [DM*DN-1:0]    choices,
    output reg                 done,   // the sums are of a whole tile
    output wire [DM*DN*31-1:0] sums,   // channel i, lane j at i * DN + j
    output wire [DN*24-1:0]    one_sums
);
    // Flags go with the counts: `counted` ones with those that leave the popcount.
    wire counted_valid, counted_first, counted_shift, counted_ones, counted_last;
    reg valid1, first1, shift1, last1;

    delay #(.WIDTH(5), .CYCLES(STAGES - 1)) popcount_stage (
        .clk(clk), .value({valid && !reset, first, shift, ones, last}),
        .delayed({counted_valid, counted_first, counted_shift, counted_ones, counted_last})
    );

    always @(posedge clk) begin
        valid1 <= counted_valid && !reset;
        first1 <= counted_first;
        shift1 <= counted_shift;
        last1 <= counted_last;
        done <= valid1 && last1 && !reset;
    end

    genvar i, j;
    generate
        for (i = 0; i < DM; i = i + 1) begin : channel
            wire [17:0] numbers;
            delay #(.WIDTH(18), .CYCLES(STAGES - 1)) lookup_stage (
                .clk(clk), .value(weight[i*DK +: 18]), .delayed(numbers)
            );
            for (j = 0; j < DN; j = j + 1) begin : lane
                dot #(.DK(DK), .STAGES(STAGES)) dot (
                    .clk(clk), .act(act[j*DK +: DK]), .weight(weight[i*DK +: DK]),
                    .counts(1'b1), .looks_up(looks_up), .choice(choices[j*DM+i]),
                    .numbers(numbers), .valid(valid1), .first(first1), .shift(shift1),
                    .sum(sums[(i*DN+j)*31 +: 31])
                );
            end
        end
        for (j = 0; j < DN; j = j + 1) begin : one_lane
            dot #(.DK(DK), .STAGES(STAGES), .ONES(1), .WIDTH(24)) dot (
                .clk(clk), .act(act[j*DK +: DK]), .weight({DK{1'b0}}), .counts(counted_ones),
                .looks_up(1'b0), .choice(1'b0), .numbers(18'd0), .valid(valid1), .first(first1),
                .shift(shift1), .sum(one_sums[j*24 +: 24])
            );
        end
    endgenerate
endmodule
