// Counts of a tile to accumulators, and to codes by binary search among thresholds.
//
// Lane after lane it adds border constants; then, from the highest bit of the code down, lane after
// lane compares with one threshold per channel, and writes that plane.
`include "isa.vh"

module epilogue #(
    parameter DM = 8,
    parameter DN = 8,
    parameter PARAM_ROWS = 1024,
    parameter OUT_ROWS = 4096
) (
    input  wire                             clk,
    input  wire                             reset,
    input  wire                             setup,  // of a new instruction
    input  wire [255:0]                     x,
    input  wire                             start,  // of a tile
    input  wire [DM*DN*32-1:0]              sums,
    input  wire [DN*32-1:0]                 one_sums,
    input  wire [DN-1:0]                    lane_valid,
    input  wire [DN*$clog2(PARAM_ROWS)-1:0] border,
    output wire                             idle,
    output wire [DM*$clog2(PARAM_ROWS)-1:0] param_row,
    input  wire [DM*32-1:0]                 param_data,
    output wire [64/DM-1:0]                 out_write,
    output wire [$clog2(OUT_ROWS)-1:0]      out_row,
    output wire [63:0]                      out_data,
    output wire                             buffer_range
);
    localparam ROW_BITS = $clog2(PARAM_ROWS);
    localparam LANE_BITS = $clog2(DN);
    localparam PARTS = 64 / DM;
    localparam [LANE_BITS-1:0] LAST_LANE = {LANE_BITS{1'b1}};  // DN is a power of two

    localparam SETUP_FACTOR = 3'd0, SETUP_SIGN = 3'd1, BORDER = 3'd2, SEARCH = 3'd3, WRITE = 3'd4;

    reg [2:0] stage, stage1;
    reg [LANE_BITS-1:0] lane, lane1;
    reg [2:0] bit_now, bit1;
    reg [4:0] word;
    reg busy, busy1;
    reg [DM*32-1:0] factor;
    reg [DM-1:0] sign;
    reg [31:0] acc [0:DM*DN-1];
    reg [31:0] one [0:DN-1];
    reg [7:0] code [0:DM*DN-1];
    reg [DN-1:0] valid;
    reg [DN*ROW_BITS-1:0] border_rows;
    reg [31:0] tile_row, write_row;

    wire [3:0] bits = x[`CONV_BITS];
    wire is_codes = bits != 0;
    wire [2:0] top_bit = bits[2:0] - 3'd1;
    wire ends_words = {27'd0, word} == DM / 2 - 1;
    wire [31:0] at = {{32-LANE_BITS{1'b0}}, lane};
    wire [31:0] at1 = {{32-LANE_BITS{1'b0}}, lane1};
    wire ends_round = lane == LAST_LANE;
    wire [13:0] first_row = x[`CONV_PARAM];
    wire [13:0] sign_row = first_row + 14'd1;
    wire [13:0] first_threshold = first_row + {2'd0, x[`CONV_THRESHOLDS]};
    wire searches1 = busy1 && stage1 == SEARCH && valid[lane1];
    wire writes_word = busy && stage == WRITE && valid[lane];
    wire writes = searches1 || writes_word;
    wire [DM-1:0] reached;

    genvar i, j;
    generate
        for (i = 0; i < DM; i = i + 1) begin : channel
            wire [7:0] level = (8'd1 << (top_bit - bit_now)) - 8'd1;
            wire [7:0] found = code[i*DN + at];
            wire [13:0] threshold_row = first_threshold + {6'd0, found} + {6'd0, level};
            assign param_row[i*ROW_BITS +: ROW_BITS] =
                stage == SETUP_FACTOR ? first_row[ROW_BITS-1:0]
                : stage == SETUP_SIGN ? sign_row[ROW_BITS-1:0]
                : stage == BORDER ? border_rows[lane*ROW_BITS +: ROW_BITS]
                : threshold_row[ROW_BITS-1:0];
            assign reached[i] = $signed(acc[i*DN + at1])
                >= $signed(param_data[i*32 +: 32]);

            wire [31:0] twice = {acc[i*DN + at1][30:0], 1'b0};
            wire [31:0] value = param_data[i*32 +: 32] + (sign[i] ? twice : -twice)
                + factor[i*32 +: 32] * one[lane1];
            for (j = 0; j < DN; j = j + 1) begin : lanes
                always @(posedge clk) begin
                    if (start) begin
                        acc[i*DN + j] <= sums[(i*DN+j)*32 +: 32];
                        code[i*DN + j] <= 0;
                    end else if (busy1 && lane1 == j) begin
                        if (stage1 == BORDER) acc[i*DN + j] <= value;
                        if (stage1 == SEARCH && reached[i]) code[i*DN + j] <= {code[i*DN + j][6:0], 1'b1};
                        else if (stage1 == SEARCH) code[i*DN + j] <= {code[i*DN + j][6:0], 1'b0};
                    end
                end
            end
            always @(posedge clk) begin
                if (busy1 && stage1 == SETUP_FACTOR) factor[i*32 +: 32] <= param_data[i*32 +: 32];
                if (busy1 && stage1 == SETUP_SIGN) sign[i] <= param_data[i*32];
            end
        end
        for (i = 0; i < PARTS; i = i + 1) begin : parts
            assign out_write[i] = !buffer_range && (writes_word || (searches1
                && (x[`CONV_SUB_WORD] == 0 || x[`CONV_SUB_WORD] == i)));
            assign out_data[i*DM +: DM] = is_codes
                ? (x[`CONV_SUB_WORD] == i ? reached : {DM{1'b0}}) : words[i*DM +: DM];
        end
        for (j = 0; j < DN; j = j + 1) begin : one_lanes
            always @(posedge clk) if (start) one[j] <= one_sums[j*32 +: 32];
        end
    endgenerate

    wire [31:0] low_half = {26'd0, word, 1'b0} * DN + at;
    wire [63:0] words = {acc[low_half + DN], acc[low_half]};

    assign idle = !busy && !busy1;
    assign out_row = write_row[$clog2(OUT_ROWS)-1:0];
    assign buffer_range = writes && write_row >= OUT_ROWS;

    always @(posedge clk) begin
        if (reset) {busy, busy1} <= 0;
        else begin
            busy1 <= busy;
            if (setup || start) busy <= 1;
            else if (busy && stage == SETUP_SIGN) busy <= 0;
            else if (busy && ends_round && stage == SEARCH && bit_now == 0) busy <= 0;
            else if (busy && ends_round && stage == WRITE && ends_words) busy <= 0;
        end
        stage1 <= stage;
        lane1 <= lane;
        bit1 <= bit_now;
        if (setup) begin
            stage <= SETUP_FACTOR;
            tile_row <= {18'd0, x[`CONV_OUT]};
        end else if (start) begin
            stage <= BORDER;
            lane <= 0;
            word <= 0;
            bit_now <= top_bit;
            valid <= lane_valid;
            border_rows <= border;
        end else if (busy) begin
            case (stage)
                SETUP_FACTOR: stage <= SETUP_SIGN;
                WRITE: begin
                    word <= ends_words ? 5'd0 : word + 1'b1;
                    if (ends_words) lane <= lane + 1'b1;
                end
                default: begin
                    lane <= lane + 1'b1;
                    if (ends_round && stage == BORDER) stage <= is_codes ? SEARCH : WRITE;
                    if (ends_round && stage == SEARCH) bit_now <= bit_now - 1'b1;
                end
            endcase
        end
        // Planes of a lane are neighbours: a round writes every `bits`-th row.
        if (busy && stage == BORDER && ends_round)
            write_row <= is_codes ? tile_row + {29'd0, top_bit} : tile_row;
        else if (busy1 && stage1 == SEARCH)
            write_row <= lane1 == LAST_LANE ? tile_row + {29'd0, bit1} - 32'd1
                : write_row + {28'd0, bits};
        else if (busy && stage == WRITE) write_row <= write_row + 32'd1;
        if (busy1 && lane1 == LAST_LANE && stage1 == SEARCH && bit1 == 0)
            tile_row <= tile_row + DN * {28'd0, bits};
        if (busy && lane == LAST_LANE && stage == WRITE && ends_words)
            tile_row <= tile_row + DN * (DM / 2);
    end
endmodule
