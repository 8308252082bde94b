// The array behind registers, to estimate its frequency by itself.
module registered_array #(
    parameter DM = 4,
    parameter DN = 4,
    parameter DK = 64,
    parameter STAGES = 2
) (
    input  wire                clk,
    input  wire [5:0]          flags,
    input  wire [DN*DK-1:0]    act,
    input  wire [DM*DK-1:0]    weight,
    output wire                done,
    output wire [DM*DN*31-1:0] sums,
    output wire [DN*24-1:0]    one_sums
);
    reg looks_up, valid, first, shift, ones, last;
    reg [DN*DK-1:0] act1;
    reg [DM*DK-1:0] weight1;

    always @(posedge clk) begin
        {looks_up, valid, first, shift, ones, last} <= flags;
        act1 <= act;
        weight1 <= weight;
    end

    array #(.DM(DM), .DN(DN), .DK(DK), .STAGES(STAGES)) array (
        .clk(clk), .reset(1'b0), .valid(valid), .first(first), .shift(shift), .ones(ones),
        .last(last), .act(act1), .weight(weight1), .looks_up(looks_up), .choices(act1[DM*DN-1:0]),
        .done(done), .sums(sums), .one_sums(one_sums)
    );
endmodule
