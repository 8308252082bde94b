// Largest code under a window, for DM channels of DN lanes: one plane of one tap a cycle.
//
// The planes of a tap come from the highest down. Until the largest so far and the tap differ, both
// may still win; from there on one of them does. Tiles use the two halves of the memory in turn.
// It is as many cycles late as the array: the epilogue has read a half before it is written.
module pool #(
    parameter DM = 8,
    parameter DN = 8,
    parameter DK = 64,
    parameter STAGES = 2  // of the array's popcounts
) (
    input  wire               clk,
    input  wire               valid,
    input  wire               first,    // tap of the tile
    input  wire [2:0]         plane,    // 0 is the highest
    input  wire               half,
    input  wire [5:0]         part,     // of each word
    input  wire [1:0]         slice,    // of words of more than 64 bits
    input  wire [DN*DK-1:0]   act,
    // Of the words, channel i of lane j at j * DM + i, as late as the array's counts.
    output wire [DM*DN-1:0]   parts,
    // Planes of the tile before, channel i of lane j at j * DM + i.
    input  wire [2:0]         read_plane,
    input  wire               read_half,
    output wire [DM*DN-1:0]   largest
);
    wire valid0, first0, half0;
    wire [2:0] plane0;
    wire [DM*DN-1:0] tap;
    reg valid1, first1, top1, half1;
    reg [2:0] plane1;
    reg [DM*DN-1:0] tap1;
    reg [DM*DN-1:0] keeps, takes;
    wire [31:0] part_at = {24'd0, slice, 6'd0} + {26'd0, part} * DM;
    wire [DM*DN-1:0] now, next, old, keep, take;

    genvar j;
    generate
        for (j = 0; j < DN; j = j + 1) begin : lane
            wire [DK-1:0] word = act[j*DK +: DK];
            assign tap[j*DM +: DM] = word[part_at[$clog2(DK)-1:0] +: DM];
        end
    endgenerate

    delay #(.WIDTH(6 + DM * DN), .CYCLES(STAGES - 1)) as_the_array (
        .clk(clk), .value({valid, first, half, plane, tap}),
        .delayed({valid0, first0, half0, plane0, parts})
    );

    // Two copies: one to go on with, one for the epilogue.
    table_ram #(.WIDTH(DM*DN), .DEPTH(16)) own (
        .clk(clk), .write(valid1), .write_row({half1, plane1}), .write_data(next),
        .read_row({half1, plane1}), .read_data(now)
    );
    table_ram #(.WIDTH(DM*DN), .DEPTH(16)) result (
        .clk(clk), .write(valid1), .write_row({half1, plane1}), .write_data(next),
        .read_row({read_half, read_plane}), .read_data(largest)
    );

    assign old = first1 ? {DM*DN{1'b0}} : now;
    assign keep = top1 ? {DM*DN{1'b0}} : keeps;
    assign take = top1 ? {DM*DN{1'b0}} : takes;
    assign next = (old & ~take) | (tap1 & ~keep);

    always @(posedge clk) begin
        valid1 <= valid0;
        first1 <= first0;
        top1 <= plane0 == 0;
        plane1 <= plane0;
        half1 <= half0;
        tap1 <= parts;
        if (valid1) begin
            keeps <= keep | (~take & old & ~tap1);
            takes <= take | (~keep & ~old & tap1);
        end
    end
endmodule
