// Number of ones among WIDTH bits, at most 128.
//
// For synthesis: columns of bits of equal weight, made lower stage by stage with 6:3 counters, three
// LUTs each, until two rows are left to add. FIRST = 3 begins with 3:2 counters: where each bit is
// an xor of two signals, a LUT of six inputs holds three of them.
module popcount #(
    parameter WIDTH = 64,
    parameter FIRST = 6
) (
    input  wire [WIDTH-1:0]       bits,
    output wire [$clog2(WIDTH):0] count
);
`ifdef SYNTHESIS
    localparam COLUMNS = $clog2(WIDTH) + 1;
    localparam STAGES = 6;
    localparam [63:0] TWOS = 64'h8117177e177e7ee8, FOURS = 64'hfee8e880e8808000;

    // Bits in each column behind some stages: 16 bits a number.
    function [16*COLUMNS-1:0] heights(input integer stages);
        integer stage, at, now, six, three, below, twice, below_six;
        reg [16*COLUMNS-1:0] next;
        begin
            heights = WIDTH;
            for (stage = 0; stage < stages; stage = stage + 1) begin
                below = 0;  // counters of the column below, and bits that the one below it carries
                twice = 0;
                for (at = 0; at < COLUMNS; at = at + 1) begin
                    now = heights[at*16 +: 16];
                    six = stage == 0 && FIRST == 3 ? 0 : (now + 1) / 6;
                    three = now > 6 * six ? (now - 6 * six) / 3 : 0;
                    next[at*16 +: 16] = six + three + below + twice
                        + (now > 6 * six ? now - 6 * six - 3 * three : 0);
                    below = six + three;
                    twice = at > 0 ? below_six : 0;
                    below_six = six;
                end
                heights = next;
            end
        end
    endfunction

    // Column c behind stage s is word c of columns[s].
    wire [COLUMNS*WIDTH-1:0] columns [0:STAGES];
    assign columns[0] = {{(COLUMNS-1)*WIDTH{1'b0}}, bits};

    genvar s, c, i;
    generate
        for (s = 0; s < STAGES; s = s + 1) begin : stage
            localparam [16*COLUMNS+31:0] HEIGHTS = {heights(s), 32'd0};
            // Of column c the word c + 2: that of a column that isn't there is 0.
            wire [(COLUMNS+2)*WIDTH-1:0] sums, twos, fours;
            assign {sums[2*WIDTH-1:0], twos[2*WIDTH-1:0], fours[2*WIDTH-1:0]} = 0;
            for (c = 0; c < COLUMNS; c = c + 1) begin : column
                localparam IS_FIRST = s == 0 && FIRST == 3;
                localparam HEIGHT = HEIGHTS[16*c+32 +: 16], BELOW = HEIGHTS[16*c+16 +: 16];
                localparam TWICE = HEIGHTS[16*c +: 16];
                // Counters of six bits, and all; the last one of five or six may lack a bit.
                localparam SIX = IS_FIRST ? 0 : (HEIGHT + 1) / 6;
                localparam ALL = HEIGHT > 6 * SIX ? SIX + (HEIGHT - 6 * SIX) / 3 : SIX;
                localparam BELOW_SIX = IS_FIRST ? 0 : (BELOW + 1) / 6;
                localparam BELOW_ALL = BELOW > 6 * BELOW_SIX
                    ? BELOW_SIX + (BELOW - 6 * BELOW_SIX) / 3 : BELOW_SIX;
                localparam TWICE_SIX = IS_FIRST ? 0 : (TWICE + 1) / 6;
                wire [WIDTH+5:0] now = {6'd0, columns[s][c*WIDTH +: WIDTH]};
                for (i = 0; i < ALL; i = i + 1) begin : counter
                    wire [5:0] group;
                    if (i < SIX) assign group = now[6*i +: 6];
                    else assign group = {3'd0, now[6*SIX + 3*(i-SIX) +: 3]};
                    assign sums[(c+2)*WIDTH + i] = ^group;
                    assign twos[(c+2)*WIDTH + i] = TWOS[group];
                    assign fours[(c+2)*WIDTH + i] = FOURS[group];
                end
                assign sums[(c+2)*WIDTH + ALL +: WIDTH - ALL] = 0;
                assign twos[(c+2)*WIDTH + ALL +: WIDTH - ALL] = 0;
                assign fours[(c+2)*WIDTH + ALL +: WIDTH - ALL] = 0;
                wire [WIDTH+5:0] rest = now >> (3 * SIX + 3 * ALL);
                assign columns[s+1][c*WIDTH +: WIDTH] = sums[(c+2)*WIDTH +: WIDTH]
                    | twos[(c+1)*WIDTH +: WIDTH] << ALL
                    | fours[c*WIDTH +: WIDTH] << (ALL + BELOW_ALL)
                    | rest[WIDTH-1:0] << (ALL + BELOW_ALL + TWICE_SIX);
            end
        end
    endgenerate

    wire [COLUMNS-1:0] row0, row1;
    generate
        for (c = 0; c < COLUMNS; c = c + 1) begin : rows
            assign row0[c] = columns[STAGES][c*WIDTH];
            assign row1[c] = columns[STAGES][c*WIDTH + 1];
        end
    endgenerate
    assign count = row0 + row1;
`else
    wire [31:0] ones = $countones(bits);
    assign count = ones[$clog2(WIDTH):0];
    wire unused = &{1'b0, FIRST == 3, ones[31:$clog2(WIDTH)+1]};
`endif
endmodule
