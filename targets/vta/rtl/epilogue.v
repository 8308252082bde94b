// Counts of a tile to accumulators, and to codes by binary search among thresholds.
//
// Lane after lane it adds border constants, and reads the residual's codes, a plane a cycle; then,
// from the highest bit of the code down, lane after lane compares with one threshold per channel,
// and writes that plane. The index of a lane's next threshold begins as the residual's code, and
// grows by the bit that was decided. Of a pool the planes are there, and only written.
`include "isa.vh"

module epilogue #(
    parameter DM = 8,
    parameter DN = 8,
    parameter PARAM_ROWS = 1024,
    parameter RESIDUAL_ROWS = 4096,
    parameter OUT_ROWS = 4096
) (
    input  wire                             clk,
    input  wire                             reset,
    input  wire                             setup,  // of a new instruction
    input  wire                             is_pool,
    input  wire [255:0]                     x,
    input  wire                             start,  // of a tile
    input  wire [DM*DN*31-1:0]              sums,
    input  wire [DN*24-1:0]                 one_sums,
    input  wire [DN-1:0]                    lane_valid,
    input  wire [DN*$clog2(PARAM_ROWS)-1:0] border,
    output wire                             idle,
    output wire [DM*$clog2(PARAM_ROWS)-1:0] param_row,
    input  wire [DM*32-1:0]                 param_data,
    output wire [$clog2(RESIDUAL_ROWS)-1:0] residual_row,
    input  wire [63:0]                      residual_data,
    output wire [2:0]                       pool_plane,
    input  wire [DM*DN-1:0]                 pool_planes,
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

    // What is issued now, and what was a cycle before.
    reg busy, busy1, adds2;
    reg [2:0] stage, stage1;
    reg [LANE_BITS-1:0] lane, lane1, lane2;
    reg [2:0] plane, plane1;   // of the residual
    reg [2:0] bit_now, bit1, round, round1;
    reg [4:0] word, word1;
    reg [DN-1:0] valid;
    reg [ROW_BITS-1:0] base, span;  // first row of the round's thresholds, rows of its first code
    reg [DN*ROW_BITS-1:0] tile_border;
    reg [DM*DN*31-1:0] tile_sums;
    reg [DN*24-1:0] tile_ones;
    wire [ROW_BITS-1:0] border_row;
    wire [23:0] one;
    reg [18:0] residual_line;
    reg [18:0] tile_row, write_row;

    wire [3:0] bits = x[`CONV_BITS], residual_bits = x[`CONV_RESIDUAL_BITS];
    wire is_codes = bits != 0, has_residual = residual_bits != 0;
    wire [13:0] first_row = x[`CONV_PARAM];
    wire [13:0] first_threshold = first_row + {2'd0, x[`CONV_THRESHOLDS]};
    wire [2:0] top_bit = bits[2:0] - 3'd1;
    wire [2:0] top_plane = has_residual ? residual_bits[2:0] - 3'd1 : 3'd0;
    wire ends_words = {27'd0, word} == DM / 2 - 1;
    wire ends_round = lane == LAST_LANE;
    wire ends_lane = plane == 0;  // the residual's lowest plane
    wire borders = busy && stage == BORDER, borders1 = busy1 && stage1 == BORDER;
    wire adds1 = borders1 && plane1 == top_plane;
    wire searches1 = busy1 && stage1 == SEARCH;
    wire writes = busy1 && (stage1 == SEARCH || stage1 == WRITE) && valid[lane1];
    wire [DM-1:0] reached;
    wire [DM*32-1:0] acc;

    assign residual_row = residual_line[$clog2(RESIDUAL_ROWS)-1:0];
    assign pool_plane = round1;
    wire [ROW_BITS-1:0] base_row = stage == BORDER ? border_row : base;
    wire [31:0] part_at = {27'd0, x[`CONV_SUB_WORD]} * DM;
    wire [DM-1:0] residual = has_residual ? residual_data[part_at[5:0] +: DM] : {DM{1'b0}};
    wire [DM-1:0] pooled;

    lane_mux #(.WIDTH(ROW_BITS), .LANES(DN)) border_mux (
        .values(tile_border), .lane(lane), .value(border_row)
    );
    lane_mux #(.WIDTH(24), .LANES(DN)) one_mux (
        .values(tile_ones), .lane(lane), .value(one)
    );
    lane_mux #(.WIDTH(DM), .LANES(DN)) pool_mux (
        .values(pool_planes), .lane(lane1), .value(pooled)
    );

    genvar i;
    generate
        for (i = 0; i < DM; i = i + 1) begin : channel
            // The index of a lane's next threshold in its round.
            wire [ROW_BITS-1:0] index;
            reg [ROW_BITS-1:0] index1;
            reg [7:0] code;
            wire [7:0] next_code = {plane1 == top_plane ? 7'd0 : code[6:0], residual[i]};
            wire [ROW_BITS+7:0] first_index = {{ROW_BITS{1'b0}}, next_code};
            assign param_row[i*ROW_BITS +: ROW_BITS]
                = base_row + (stage == SEARCH ? index : {ROW_BITS{1'b0}});
            table_ram #(.WIDTH(ROW_BITS), .DEPTH(DN)) indices (
                .clk(clk), .write(borders1 || searches1), .write_row(lane1),
                .write_data(borders1 ? first_index[ROW_BITS-1:0]
                    : {index1[ROW_BITS-2:0], reached[i]}),
                .read_row(lane), .read_data(index)
            );

            // border -+ 2 differing + factor ones
            reg signed [17:0] factor;
            reg sign;
            wire [30:0] sum;
            reg [30:0] sum1;
            reg [31:0] sum2;
            reg signed [42:0] product1, product2;
            lane_mux #(.WIDTH(31), .LANES(DN)) sum_mux (
                .values(tile_sums[i*DN*31 +: DN*31]), .lane(lane), .value(sum)
            );
            table_ram #(.WIDTH(32), .DEPTH(DN)) accumulators (
                .clk(clk), .write(adds2), .write_row(lane2), .write_data(sum2 + product2[31:0]),
                .read_row(lane1), .read_data(acc[i*32 +: 32])
            );
            assign reached[i] = is_pool ? pooled[i]
                : $signed(acc[i*32 +: 32]) >= $signed(param_data[i*32 +: 32]);

            always @(posedge clk) begin
                index1 <= index;
                code <= next_code;
                if (busy1 && stage1 == SETUP_FACTOR) factor <= param_data[i*32 +: 18];
                if (busy1 && stage1 == SETUP_SIGN) sign <= param_data[i*32];
                sum1 <= sum;
                sum2 <= param_data[i*32 +: 32] + (sign ? {sum1, 1'b0} : ~{sum1, 1'b0})
                    + {31'd0, !sign};
                product1 <= factor * $signed({1'b0, one});
                product2 <= product1;
            end
            wire unused = &{1'b0, product2[42:32], first_index[ROW_BITS+7:ROW_BITS]};
        end
        for (i = 0; i < PARTS; i = i + 1) begin : parts
            assign out_write[i] = writes && !buffer_range
                && (x[`CONV_SUB_WORD] == 0 || x[`CONV_SUB_WORD] == i || !is_codes);
            assign out_data[i*DM +: DM] = is_codes
                ? (x[`CONV_SUB_WORD] == i ? reached : {DM{1'b0}}) : words[i*DM +: DM];
        end
    endgenerate

    wire [63:0] words = acc[{27'd0, word1} * 64 +: 64];

    assign idle = !busy && !busy1;
    assign out_row = write_row[$clog2(OUT_ROWS)-1:0];
    assign buffer_range = (writes && {13'd0, write_row} >= OUT_ROWS)
        || (borders && has_residual && valid[lane] && {13'd0, residual_line} >= RESIDUAL_ROWS);

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
        {lane1, lane2} <= {lane, lane1};
        plane1 <= plane;
        bit1 <= bit_now;
        round1 <= round;
        word1 <= word;
        adds2 <= adds1;
        if (setup) begin
            stage <= SETUP_FACTOR;
            base <= first_row[ROW_BITS-1:0];
        end else if (start) begin
            stage <= is_pool ? SEARCH : BORDER;
            lane <= 0;
            word <= 0;
            bit_now <= top_bit;
            round <= 0;
            plane <= top_plane;
            valid <= lane_valid;
            base <= first_threshold[ROW_BITS-1:0];
            span <= {{ROW_BITS-1{1'b0}}, 1'b1} << residual_bits;
        end else if (busy) begin
            case (stage)
                SETUP_FACTOR: begin
                    stage <= SETUP_SIGN;
                    base <= base + 1'b1;
                end
                BORDER: begin
                    plane <= ends_lane ? top_plane : plane - 1'b1;
                    if (ends_lane) lane <= lane + 1'b1;
                    if (ends_lane && ends_round) stage <= is_codes ? SEARCH : WRITE;
                end
                WRITE: begin
                    word <= ends_words ? 5'd0 : word + 1'b1;
                    if (ends_words) lane <= lane + 1'b1;
                end
                default: begin
                    lane <= lane + 1'b1;
                    if (ends_round) begin
                        bit_now <= bit_now - 1'b1;
                        round <= round + 1'b1;
                        base <= base + span;
                        span <= {span[ROW_BITS-2:0], 1'b0};
                    end
                end
            endcase
        end
        if (start) begin
            tile_border <= border;
            tile_sums <= sums;
            tile_ones <= one_sums;
        end
        // Planes of a lane are neighbours, and read from the highest down.
        if (setup) residual_line <= {5'd0, x[`CONV_RESIDUAL]} + {16'd0, top_plane};
        else if (borders) residual_line <= ends_lane
            ? residual_line + {15'd0, residual_bits} + {16'd0, top_plane} : residual_line - 19'd1;
        // A round writes every `bits`-th row.
        if (setup) tile_row <= {5'd0, x[`CONV_OUT]};
        else if (busy1 && lane1 == LAST_LANE && stage1 == SEARCH && bit1 == 0)
            tile_row <= tile_row + {{15-LANE_BITS{1'b0}}, bits, {LANE_BITS{1'b0}}};
        else if (busy1 && lane1 == LAST_LANE && stage1 == WRITE && {27'd0, word1} == DM / 2 - 1)
            tile_row <= write_row + 19'd1;
        if (start) write_row <= is_codes ? tile_row + {16'd0, top_bit} : tile_row;
        else if (searches1) write_row <= lane1 == LAST_LANE
            ? tile_row + {16'd0, bit1} - 19'd1 : write_row + {15'd0, bits};
        else if (busy1 && stage1 == WRITE) write_row <= write_row + 19'd1;
    end
endmodule
