// DM x DN units that count differing bits, and a row of DN that count ones. Planes come by Horner's
// rule: `shift` doubles what was summed so far.
module array #(
    parameter DM = 8,
    parameter DN = 8
) (
    input  wire                clk,
    input  wire                reset,
    input  wire                valid,  // of the operands, with its flags
    input  wire                first,
    input  wire                shift,
    input  wire                ones,
    input  wire                last,
    input  wire [DN*64-1:0]    act,
    input  wire [DM*64-1:0]    weight,
    input  wire                looks_up,  // numbers of the weights instead of differing bits
    input  wire [DM*DN-1:0]    choices,   // which of two, of channel i and lane j at j * DM + i
    output reg                 done,   // the sums are of a whole tile
    output wire [DM*DN*31-1:0] sums,   // channel i, lane j at i * DN + j
    output wire [DN*24-1:0]    one_sums
);
    reg valid1, first1, shift1, last1;

    always @(posedge clk) begin
        valid1 <= valid && !reset;
        first1 <= first;
        shift1 <= shift;
        last1 <= last;
        done <= valid1 && last1 && !reset;
    end

    genvar i, j;
    generate
        for (i = 0; i < DM; i = i + 1) begin : channel
            for (j = 0; j < DN; j = j + 1) begin : lane
                dot dot (
                    .clk(clk), .act(act[j*64 +: 64]), .weight(weight[i*64 +: 64]),
                    .counts(1'b1), .looks_up(looks_up), .choice(choices[j*DM+i]),
                    .numbers(weight[i*64 +: 18]), .valid(valid1), .first(first1), .shift(shift1),
                    .sum(sums[(i*DN+j)*31 +: 31])
                );
            end
        end
        for (j = 0; j < DN; j = j + 1) begin : one_lane
            dot #(.ONES(1), .WIDTH(24)) dot (
                .clk(clk), .act(act[j*64 +: 64]), .weight(64'd0), .counts(ones),
                .looks_up(1'b0), .choice(1'b0), .numbers(18'd0), .valid(valid1), .first(first1), .shift(shift1), .sum(one_sums[j*24 +: 24])
            );
        end
    endgenerate
endmodule
