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
    parameter OUT_ROWS = 4096,
    parameter FLOAT_UNITS = 0
) (
    input  wire                             clk,
    input  wire                             reset,
    input  wire                             setup,  // of a new instruction
    input  wire                             is_pool,
    input  wire [255:0]                     x,
    input  wire [4:0]                       copies,
    input  wire [6:0]                       copy_parts,
    input  wire [13:0]                      copy_rows,
    // Float arithmetic behind the accumulators, see float_unit.v; 0 without such units.
    input  wire                             is_float,
    input  wire                             adds_residual,
    input  wire                             writes_floats,
    input  wire [13:0]                      float_rows,
    input  wire [5:0]                       pixel_words,
    input  wire [5:0]                       pixel_rows,  // not 0: planes lie side by side
    input  wire [5:0]                       plane_parts,
    input  wire [5:0]                       plane_rows,
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
    localparam PLACE_BITS = LANE_BITS + (FLOAT_UNITS == 0 ? 0 : 1);
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
    wire [31:0] own_part_at = {26'd0, x[`CONV_SUB_WORD]} * DM;
    wire [DM-1:0] residual = has_residual ? residual_data[own_part_at[5:0] +: DM] : {DM{1'b0}};

    assign constant_row = reads_factor ? first_row[ROW_BITS-1:0]
        : reads_signs ? first_row[ROW_BITS-1:0] + 1'b1
        : reads_float ? first_float[ROW_BITS-1:0] + {{ROW_BITS-3{1'b0}}, float_constant}
        : border_row;
    assign residual_row = is_float ? float_line[$clog2(RESIDUAL_ROWS)-1:0]
        : residual_line[$clog2(RESIDUAL_ROWS)-1:0];

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
    wire opens = is_float ? ends_floats && is_codes : start ? is_pool
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
    // Side by side, a plane lies in front of the next higher one.
    wire is_packed = pixel_rows != 0;
    wire [5:0] code_rows = is_packed ? pixel_rows : {2'd0, bits};
    wire leaves_word = part1 < plane_parts;
    wire [31:0] plane_part = {26'd0, part1} - {26'd0, plane_parts} + (leaves_word ? PARTS : 0);
    wire [19:0] plane_row = copy_row - {14'd0, plane_rows} - {19'd0, leaves_word};
    wire ends_plane1 = busy1 && is_codes && search1 == LAST_LANE;
    wire [31:0] next_tile_row
        = {12'd0, tile_row} + (is_codes ? {26'd0, code_rows} * DN : lane_words * DN);
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
            assign lane_sums[i*32 +: 32] = sum2 + product2[31:0];
            // With float arithmetic, numbers in place of accumulators, of two tiles in turn.
            table_ram #(.WIDTH(32), .DEPTH(1 << PLACE_BITS)) accumulators (
                .clk(clk), .write(is_float ? key_write[i] : adds2),
                .write_row(write_place[PLACE_BITS-1:0]),
                .write_data(is_float ? keys[i*32 +: 32] : lane_sums[i*32 +: 32]),
                .read_row(read_place[PLACE_BITS-1:0]), .read_data(acc[i*32 +: 32])
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
            assign out_write[i] = !buffer_range && (float_write || (writes
                && (part1 == i || !is_codes || (part1 == 0 && !is_packed))));
            assign out_data[i*DM +: DM] = float_write ? float_word[i*DM +: DM] : is_codes
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

    // Float arithmetic. Its words come first: the search waits for them.
    wire reads_float, ends_floats, float_word_next, float_word_write, reads_floats, floats_idle;
    wire [2:0] float_constant;
    wire [19:0] residual_offset, word_offset;
    wire [63:0] float_word;
    wire [DM*32-1:0] keys, lane_sums;
    wire [DM-1:0] key_write;
    wire [LANE_BITS-1:0] key_lane;
    wire [DN-1:0] floats_valid;
    wire key_half, searched_half;
    wire [LANE_BITS:0] write_place = is_float ? {key_half, key_lane} : {1'b0, lane2};
    wire [LANE_BITS:0] read_place = {is_float && searched_half, search1};
    wire [13:0] first_float = first_threshold - 14'd5;
    wire [19:0] group_words = own_part_at[20:1];
    wire [19:0] float_line = {6'd0, x[`CONV_RESIDUAL]} + group_words + residual_offset;
    wire [19:0] float_row = {6'd0, x[`CONV_OUT]} + {6'd0, float_rows} + group_words + word_offset;
    wire float_write = float_word_write && writes_floats;
    wire go = !(float_word_next && writes_floats);

    generate
        if (FLOAT_UNITS == 0) begin : no_floats
            assign {reads_float, ends_floats, float_word_next, float_word_write, reads_floats} = 0;
            assign {float_constant, residual_offset, word_offset, float_word, floats_valid} = 0;
            assign {keys, key_write, key_lane, key_half, searched_half} = 0;
            assign floats_idle = 1;
            wire unused = &{1'b0, adds_residual, pixel_words};
        end else begin : floats
            wire [LANE_BITS-1:0] float_lane;
            wire [DM*32-1:0] sums_now;
            wire [FLOAT_UNITS*32-1:0] own_keys;
            wire key_valid;
            reg first_lane, half, half_now;
            reg [DN-1:0] tile_valid;
            float_unit #(.DM(DM), .DN(DN), .UNITS(FLOAT_UNITS)) float_unit (
                .clk(clk), .reset(reset), .setup(setup && is_float),
                .has_residual(adds_residual), .pixel_words(pixel_words),
                .reads_constants(reads_float), .constant(float_constant),
                .constant_data(constant_data), .start(first_lane), .valid(valid),
                .acc_lane(float_lane), .acc(sums_now), .reads_residual(reads_floats),
                .residual_offset(residual_offset), .residual_data(residual_data),
                .key_write(key_write), .key_lane(key_lane), .key_half(key_half), .keys(own_keys),
                .key_valid(key_valid), .ends_tile(ends_floats), .writes_next(float_word_next),
                .word_write(float_word_write), .word_offset(word_offset), .word(float_word),
                .idle(floats_idle)
            );
            for (i = 0; i < DM; i = i + 1) begin : tables
                table_ram #(.WIDTH(32), .DEPTH(DN)) table_of_sums (
                    .clk(clk), .write(adds2), .write_row(lane2),
                    .write_data(lane_sums[i*32 +: 32]), .read_row(float_lane),
                    .read_data(sums_now[i*32 +: 32])
                );
                assign keys[i*32 +: 32] = own_keys[(i % FLOAT_UNITS)*32 +: 32];
            end
            always @(posedge clk) begin
                // A lane's accumulators are written a cycle before they are first read.
                first_lane <= !reset && is_float && adding1 && lane1 == 0;
                if (key_write[DM-1]) tile_valid[key_lane] <= key_valid;
                if (ends_floats) half <= key_half;
                if (opens1) half_now <= half;
            end
            assign floats_valid = tile_valid;
            assign searched_half = half_now;
        end
    endgenerate

    assign idle = !(adding || adding1 || adds2 || opens1 || busy || busy1) && floats_idle;
    assign out_row = float_write ? float_row[$clog2(OUT_ROWS)-1:0]
        : write_row[$clog2(OUT_ROWS)-1:0];
    assign buffer_range = (writes && {12'd0, write_row} >= OUT_ROWS)
        || (float_write && {12'd0, float_row} >= OUT_ROWS)
        || (reads_floats && {12'd0, float_line} >= RESIDUAL_ROWS)
        || (adding && has_residual && valid[lane] && {13'd0, residual_line} >= RESIDUAL_ROWS);

    always @(posedge clk) begin
        if (reset) {opens1, begins, busy, busy1} <= 0;
        else begin
            opens1 <= opens;
            begins <= opens1;
            busy1 <= busy && go;
            if (opens1) busy <= 1;
            else if (ends_tile && go) busy <= 0;
        end
        search1 <= search;
        bit1 <= bit_now;
        round1 <= round;
        word1 <= word;
        part1 <= begins ? (is_packed ? x[`CONV_OUT_PART] : x[`CONV_SUB_WORD])
            : ends_copy1 ? wrapped_part[5:0] : ends_plane1 && is_packed ? plane_part[5:0] : part1;
        valid1 <= search_valid[search];
        if (opens1) begin
            search_valid <= is_float ? floats_valid : valid;
            search <= 0;
            word <= 0;
            copy <= 0;
            bit_now <= top_bit;
            round <= 0;
            base <= first_threshold[ROW_BITS-1:0];
            span <= {{ROW_BITS-1{1'b0}}, 1'b1} << residual_bits;
        end else if (busy && go && !is_codes) begin
            word <= ends_words ? 5'd0 : word + 1'b1;
            if (ends_words) search <= next_search;
        end else if (busy && go) begin
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
            write_row <= is_codes && !is_packed ? tile_row + {17'd0, top_bit} : tile_row;
        end else if (busy1 && !is_codes) write_row <= write_row + 20'd1;
        else if (ends_copy1) begin
            copy_row <= next_copy_row;
            write_row <= next_copy_row + {17'd0, top_bit};
        end else if (ends_plane1 && is_packed) begin
            copy_row <= plane_row;
            write_row <= plane_row;
        end else if (busy1) write_row <= search1 == LAST_LANE
            ? copy_row + {17'd0, bit1} - 20'd1 : write_row + {14'd0, code_rows};
    end
    wire unused = &{1'b0, wrapped_part[31:6], plane_part[31:6], next_tile_row[31:20]};
endmodule
