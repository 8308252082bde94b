// Counts of a tile to accumulators, and accumulators to codes by binary search among thresholds.
//
// Two units work on neighbouring tiles. The first adds border constants, lane after lane, and reads
// the residual's codes, a plane a cycle. The second begins as soon as there are accumulators: from
// the highest bit of the code down, lane after lane compares with one threshold per channel, and
// writes that plane. The index of a lane's next threshold begins as the residual's code, and grows
// by the bit that was decided. Copies are searched one after another, each among thresholds of its
// own. Accumulators that are no codes are only written, and so are the planes of a pool.
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
    input  wire [5:0]                       sub_word,
    input  wire [4:0]                       copies,
    input  wire [6:0]                       copy_parts,
    input  wire [13:0]                      copy_rows,
    input  wire                             start,  // of a tile
    input  wire [DM*DN*31-1:0]              sums,
    input  wire [DN*24-1:0]                 one_sums,
    input  wire [DN-1:0]                    lane_valid,
    input  wire [DN*$clog2(PARAM_ROWS)-1:0] border,
    output wire                             idle,
    output wire [$clog2(PARAM_ROWS)-1:0]    constant_row,
    input  wire [DM*32-1:0]                 constant_data,
    output wire [DM*$clog2(PARAM_ROWS)-1:0] threshold_row,
    input  wire [DM*32-1:0]                 threshold_data,
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
    localparam LANE_BITS = DN > 1 ? $clog2(DN) : 1;
    localparam PARTS = 64 / DM;
    localparam [LANE_BITS-1:0] LAST_LANE = {LANE_BITS{DN > 1}};
    localparam LANE_ROWS = DN > 1 ? DN : 2;  // of memories with a number per lane

    wire [3:0] bits = x[`CONV_BITS], residual_bits = x[`CONV_RESIDUAL_BITS];
    wire is_codes = bits != 0, has_residual = residual_bits != 0;
    wire [13:0] first_row = x[`CONV_PARAM];
    wire [13:0] first_threshold = first_row + {2'd0, x[`CONV_THRESHOLDS]};
    wire [2:0] top_bit = bits[2:0] - 3'd1;
    wire [2:0] top_plane = has_residual ? residual_bits[2:0] - 3'd1 : 3'd0;

    // First unit: what is issued now, and what was a cycle or two before.
    reg reads_factor, reads_signs, reads_factor1, reads_signs1;
    reg adding, adding1, adds2;
    reg [LANE_BITS-1:0] lane, lane1, lane2;
    reg [2:0] plane, plane1;  // of the residual
    reg [DN-1:0] valid;
    reg [DN*ROW_BITS-1:0] tile_border;
    reg [DM*DN*31-1:0] tile_sums;
    reg [DN*24-1:0] tile_ones;
    reg [18:0] residual_line;
    wire [ROW_BITS-1:0] border_row;
    wire [23:0] one;
    wire ends_lane = plane == 0;  // the residual's lowest plane
    wire adds1 = adding1 && plane1 == top_plane;
    wire [31:0] own_part_at = {26'd0, sub_word} * DM;
    wire [DM-1:0] residual = has_residual ? residual_data[own_part_at[5:0] +: DM] : {DM{1'b0}};

    assign constant_row = reads_factor ? first_row[ROW_BITS-1:0]
        : reads_signs ? first_row[ROW_BITS-1:0] + 1'b1 : border_row;
    assign residual_row = residual_line[$clog2(RESIDUAL_ROWS)-1:0];

    lane_mux #(.WIDTH(ROW_BITS), .LANES(DN)) border_mux (
        .values(tile_border), .lane(lane), .value(border_row)
    );
    lane_mux #(.WIDTH(24), .LANES(DN)) one_mux (
        .values(tile_ones), .lane(lane), .value(one)
    );

    always @(posedge clk) begin
        if (reset) {reads_factor, reads_signs, adding, adding1, adds2} <= 0;
        else begin
            {reads_factor, reads_signs} <= {setup, reads_factor};
            adding1 <= adding;
            adds2 <= adds1;
            if (start) adding <= !is_pool;
            else if (lane == LAST_LANE && ends_lane) adding <= 0;
        end
        {reads_factor1, reads_signs1} <= {reads_factor, reads_signs};
        {lane1, lane2} <= {lane, lane1};
        plane1 <= plane;
        if (start) begin
            lane <= 0;
            plane <= top_plane;
            valid <= lane_valid;
            tile_border <= border;
            tile_sums <= sums;
            tile_ones <= one_sums;
        end else if (adding) begin
            plane <= ends_lane ? top_plane : plane - 1'b1;
            if (ends_lane) lane <= lane == LAST_LANE ? {LANE_BITS{1'b0}} : lane + 1'b1;
        end
        // Planes of a lane are neighbours, and read from the highest down.
        if (setup) residual_line <= {5'd0, x[`CONV_RESIDUAL]} + {16'd0, top_plane};
        else if (adding) residual_line <= ends_lane
            ? residual_line + {15'd0, residual_bits} + {16'd0, top_plane} : residual_line - 19'd1;
    end

    // Second unit. It opens two cycles behind the first lane, and with a residual behind the last.
    wire opens = start ? is_pool
        : adding && ends_lane && lane == (has_residual ? LAST_LANE : {LANE_BITS{1'b0}});
    reg opens1, begins;
    reg busy, busy1;
    reg [LANE_BITS-1:0] search, search1;  // lanes
    reg [2:0] bit_now, bit1, round, round1;
    reg [3:0] copy;
    reg [4:0] word, word1;
    reg [5:0] part1;
    reg [DN-1:0] search_valid;
    reg valid1;
    reg [ROW_BITS-1:0] base, span;  // first row of the round's thresholds, rows of its first code
    reg [19:0] tile_row, copy_row, write_row;
    wire is_narrow = x[`CONV_NARROW];
    wire [31:0] lane_words = is_narrow ? DM / 4 : (DM + 1) / 2;  // of accumulators
    wire ends_words = {27'd0, word} == lane_words - 1;
    wire ends_round = search == LAST_LANE;
    wire [LANE_BITS-1:0] next_search = ends_round ? {LANE_BITS{1'b0}} : search + 1'b1;
    wire ends_copy = ends_round && bit_now == 0;
    wire ends_tile = is_codes ? ends_copy && {1'b0, copy} + 5'd1 == copies
        : ends_round && ends_words;
    wire writes = busy1 && valid1;
    wire [31:0] next_part = {26'd0, part1} + {25'd0, copy_parts};
    wire enters_word = next_part >= PARTS;
    wire [19:0] next_copy_row = copy_row + (enters_word ? {6'd0, copy_rows} : 20'd0);
    wire [31:0] wrapped_part = next_part - (enters_word ? PARTS : 0);
    wire [31:0] next_tile_row = {12'd0, tile_row}
        + (is_codes ? {28'd0, bits} * DN : lane_words * DN);
    wire ends_copy1 = busy1 && search1 == LAST_LANE && bit1 == 0;
    wire [DM-1:0] reached, pooled;
    wire [DM*32-1:0] acc;

    assign pool_plane = round1;
    lane_mux #(.WIDTH(DM), .LANES(DN)) pool_mux (
        .values(pool_planes), .lane(search1), .value(pooled)
    );

    genvar i;
    generate
        for (i = 0; i < DM; i = i + 1) begin : channel
            // border - 2 differing + factor ones
            reg signed [17:0] factor;
            wire [30:0] sum;
            reg [30:0] sum1;
            reg [31:0] sum2;
            reg signed [42:0] product1, product2;
            lane_mux #(.WIDTH(31), .LANES(DN)) sum_mux (
                .values(tile_sums[i*DN*31 +: DN*31]), .lane(lane), .value(sum)
            );
            table_ram #(.WIDTH(32), .DEPTH(LANE_ROWS)) accumulators (
                .clk(clk), .write(adds2), .write_row(lane2), .write_data(sum2 + product2[31:0]),
                .read_row(search1), .read_data(acc[i*32 +: 32])
            );

            // The index of a lane's next threshold in its round. With a residual the first unit
            // has written it before the second one opens.
            wire [ROW_BITS-1:0] index;
            reg [ROW_BITS-1:0] index1;
            reg [7:0] code;
            reg [15:0] signs;
            reg falls;  // the code of this copy
            wire [7:0] next_code = {plane1 == top_plane ? 7'd0 : code[6:0], residual[i]};
            wire [ROW_BITS+7:0] first_index = {{ROW_BITS{1'b0}}, next_code};
            // A single lane's round before has just been decided.
            wire [ROW_BITS-1:0] next_index = {index1[ROW_BITS-2:0], reached[i]};
            wire [ROW_BITS-1:0] known = round == 0 && !has_residual ? {ROW_BITS{1'b0}}
                : DN == 1 && round != 0 ? next_index : index;
            assign threshold_row[i*ROW_BITS +: ROW_BITS] = base + known;
            table_ram #(.WIDTH(ROW_BITS), .DEPTH(LANE_ROWS)) indices (
                .clk(clk), .write(has_residual && adding1 || busy1 && bit1 != 0),
                .write_row(busy1 && bit1 != 0 ? search1 : lane1),
                .write_data(busy1 && bit1 != 0 ? next_index : first_index[ROW_BITS-1:0]),
                .read_row(search), .read_data(index)
            );
            assign reached[i] = is_pool ? pooled[i]
                : falls ^ ($signed(acc[i*32 +: 32]) >= $signed(threshold_data[i*32 +: 32]));

            always @(posedge clk) begin
                index1 <= known;
                code <= next_code;
                falls <= signs[copy];
                if (reads_factor1) factor <= constant_data[i*32 +: 18];
                if (reads_signs1) signs <= constant_data[i*32 +: 16];
                sum1 <= sum;
                sum2 <= constant_data[i*32 +: 32] - {sum1, 1'b0};
                product1 <= factor * $signed({1'b0, one});
                product2 <= product1;
            end
            wire unused = &{1'b0, product2[42:32], first_index[ROW_BITS+7:ROW_BITS]};
        end
        for (i = 0; i < PARTS; i = i + 1) begin : parts
            assign out_write[i] = writes && !buffer_range
                && (part1 == 0 || part1 == i || !is_codes);
            assign out_data[i*DM +: DM] = is_codes
                ? (part1 == i ? reached : {DM{1'b0}}) : words[i*DM +: DM];
        end
    endgenerate

    // Accumulators that are no codes: two a word, or the lower halves of four; of one channel one.
    localparam HALVES_BITS = DM < 4 ? 64 : DM * 16;
    reg [HALVES_BITS-1:0] halves;
    integer c;
    always @* begin
        halves = 0;
        for (c = 0; c < DM; c = c + 1) halves[c*16 +: 16] = acc[c*32 +: 16];
    end
    wire [DM*32+31:0] wholes = {32'd0, acc};
    wire [63:0] words = is_narrow ? halves[{27'd0, word1} * 64 +: 64]
        : wholes[{27'd0, word1} * 64 +: 64];

    assign idle = !(adding || adding1 || adds2 || opens1 || busy || busy1);
    assign out_row = write_row[$clog2(OUT_ROWS)-1:0];
    assign buffer_range = (writes && {12'd0, write_row} >= OUT_ROWS)
        || (adding && has_residual && valid[lane] && {13'd0, residual_line} >= RESIDUAL_ROWS);

    always @(posedge clk) begin
        if (reset) {opens1, begins, busy, busy1} <= 0;
        else begin
            opens1 <= opens;
            begins <= opens1;
            busy1 <= busy;
            if (opens1) busy <= 1;
            else if (ends_tile) busy <= 0;
        end
        search1 <= search;
        bit1 <= bit_now;
        round1 <= round;
        word1 <= word;
        part1 <= begins ? sub_word : ends_copy1 ? wrapped_part[5:0] : part1;
        valid1 <= search_valid[search];
        if (opens1) begin
            search_valid <= valid;
            search <= 0;
            word <= 0;
            copy <= 0;
            bit_now <= top_bit;
            round <= 0;
            base <= first_threshold[ROW_BITS-1:0];
            span <= {{ROW_BITS-1{1'b0}}, 1'b1} << residual_bits;
        end else if (busy && !is_codes) begin
            word <= ends_words ? 5'd0 : word + 1'b1;
            if (ends_words) search <= next_search;
        end else if (busy) begin
            search <= next_search;
            if (ends_round) begin
                bit_now <= ends_copy ? top_bit : bit_now - 1'b1;
                round <= ends_copy ? 3'd0 : round + 1'b1;
                if (ends_copy) copy <= copy + 1'b1;
                base <= base + span;  // Thresholds of the next copy follow those of the last round.
                span <= ends_copy ? {{ROW_BITS-1{1'b0}}, 1'b1} : {span[ROW_BITS-2:0], 1'b0};
            end
        end
        // A round writes every `bits`-th row.
        if (setup) tile_row <= {6'd0, x[`CONV_OUT]};
        else if (begins) tile_row <= next_tile_row[19:0];
        if (begins) begin
            copy_row <= tile_row;
            write_row <= is_codes ? tile_row + {17'd0, top_bit} : tile_row;
        end else if (busy1 && !is_codes) write_row <= write_row + 20'd1;
        else if (ends_copy1) begin
            copy_row <= next_copy_row;
            write_row <= next_copy_row + {17'd0, top_bit};
        end else if (busy1) write_row <= search1 == LAST_LANE
            ? copy_row + {17'd0, bit1} - 20'd1 : write_row + {16'd0, bits};
    end
    wire unused = &{1'b0, wrapped_part[31:6], next_tile_row[31:20]};
endmodule
