// Accumulators of a tile to single-precision numbers, UNITS a cycle:
//
//   number = limit(multiply_add(float(accumulator) * scale, factor, term) + residual)
//
// with constants of each channel, which are loaded once for an instruction. Channels go by pairs,
// the two of a word: all lanes of a pair, then the next pair. Two units take both channels at a
// time, one takes them in turn. A place of the pipeline holds what a number is, and where it goes.
module float_unit #(
    parameter DM = 8,
    parameter DN = 8,
    parameter UNITS = 1
) (
    input  wire                  clk,
    input  wire                  reset,
    input  wire                  setup,  // of a new instruction
    input  wire                  has_residual,
    input  wire [5:0]            pixel_words,  // from one pixel's numbers to the next one's
    // Constants: which of their rows is to be read, and what was read a cycle before.
    output wire                  reads_constants,
    output wire [2:0]            constant,
    input  wire [DM*32-1:0]      constant_data,
    // A tile, whose accumulators are written no later than they are read.
    input  wire                  start,
    input  wire [DN-1:0]         valid,
    output wire [$clog2(DN)-1:0] acc_lane,
    input  wire [DM*32-1:0]      acc,
    // The residual's words, read a cycle later; rows count from the group's first one.
    output wire                  reads_residual,
    output wire [19:0]           residual_offset,
    input  wire [63:0]           residual_data,
    // Numbers as integers of the same order, to one lane of one or two channels.
    output wire [DM-1:0]         key_write,
    output wire [$clog2(DN)-1:0] key_lane,
    output wire                  key_half,  // of a memory of two tiles
    output wire [UNITS*32-1:0]   keys,
    output wire                  key_valid,
    output wire                  ends_tile,
    // Words of two numbers; `writes_next` a cycle before.
    output wire                  writes_next,
    output wire                  word_write,
    output wire [19:0]           word_offset,
    output wire [63:0]           word,
    output wire                  idle
);
    localparam LANE_BITS = $clog2(DN);
    localparam PAIRS = DM / 2;
    localparam ENTRIES = DM / UNITS;  // lines of the constants' memory
    localparam ENTRY_BITS = ENTRIES < 2 ? 1 : $clog2(ENTRIES);
    localparam PAIR_BITS = PAIRS < 2 ? 1 : $clog2(PAIRS);
    localparam [LANE_BITS-1:0] LAST_LANE = {LANE_BITS{1'b1}};
    // Places of the pipeline where each unit begins; the last one has the result.
    localparam PRODUCT = 4, SUM = 7, RESIDUAL = 14, LIMIT = 20, RESULT = 21;
    localparam SCALE = 0, FACTOR = 1, TERM = 2, LOW = 3, HIGH = 4, CONSTANTS = 5;

    // Constants, row by row to lines of UNITS channels.
    reg before1, before2, loading, loading1;
    reg [2:0] row, row1;
    reg [ENTRY_BITS-1:0] entry, entry1;
    wire ends_entries = {{32-ENTRY_BITS{1'b0}}, entry} == ENTRIES - 1;
    wire [UNITS*32-1:0] line;

    assign reads_constants = loading;
    assign constant = row;
    entry_mux #(.WIDTH(UNITS*32), .ENTRIES(ENTRIES)) constant_mux (
        .values(constant_data), .entry(entry1), .value(line)
    );
    always @(posedge clk) begin
        if (reset) {before1, before2, loading, loading1} <= 0;
        else begin
            // Factors and signs of the first unit come before.
            {before1, before2, loading1} <= {setup, before1, loading};
            if (before2) loading <= 1;
            else if (ends_entries && row == CONSTANTS - 1) loading <= 0;
        end
        {row1, entry1} <= {row, entry};
        if (before2) {row, entry} <= 0;
        else if (loading) begin
            entry <= ends_entries ? {ENTRY_BITS{1'b0}} : entry + 1'b1;
            if (ends_entries) row <= row + 1'b1;
        end
    end

    // Which number is next.
    reg busy, tile_half, second;  // second channel of the pair
    reg [DN-1:0] tile_valid;
    reg [LANE_BITS-1:0] lane;
    reg [PAIR_BITS-1:0] pair;
    reg [19:0] tile_offset, pair_offset, offset;
    wire ends_word = UNITS == 2 || second;
    wire ends_lanes = ends_word && lane == LAST_LANE;
    wire last_pair = {{32-PAIR_BITS{1'b0}}, pair} == PAIRS - 1;
    wire [19:0] tile_words = {14'd0, pixel_words} << LANE_BITS;

    assign acc_lane = lane;
    always @(posedge clk) begin
        if (reset) busy <= 0;
        else if (start) busy <= 1;
        else if (ends_lanes && last_pair) busy <= 0;
        if (start) begin
            tile_valid <= valid;
            {lane, pair, second} <= 0;
            {offset, pair_offset} <= {tile_offset, tile_offset};
        end else if (busy) begin
            second <= !second;
            if (ends_word) begin
                lane <= lane + 1'b1;
                offset <= offset + {14'd0, pixel_words};
            end
            if (ends_lanes) begin
                pair <= pair + 1'b1;
                pair_offset <= pair_offset + 20'd1;
                offset <= pair_offset + 20'd1;
            end
        end
        if (setup) {tile_half, tile_offset} <= 0;
        else if (start) begin
            tile_half <= !tile_half;
            tile_offset <= tile_offset + tile_words;
        end
    end

    // What is at each place of the pipeline.
    reg [RESULT:1] is_busy, is_valid, is_second, is_half, is_last;
    reg [RESULT*LANE_BITS-1:0] lanes;
    reg [RESULT*PAIR_BITS-1:0] pairs;
    reg [RESULT*20-1:0] offsets;
    always @(posedge clk) begin
        if (reset) is_busy <= 0;
        else is_busy <= {is_busy[RESULT-1:1], busy};
        is_valid <= {is_valid[RESULT-1:1], tile_valid[lane]};
        is_second <= {is_second[RESULT-1:1], second};
        is_half <= {is_half[RESULT-1:1], tile_half};
        is_last <= {is_last[RESULT-1:1], ends_lanes && last_pair};
        lanes <= {lanes[0 +: (RESULT-1)*LANE_BITS], lane};
        pairs <= {pairs[0 +: (RESULT-1)*PAIR_BITS], pair};
        offsets <= {offsets[0 +: (RESULT-1)*20], offset};
    end

    // Constants at the places where they are needed.
    wire [CONSTANTS*UNITS*32-1:0] constants;
    genvar i;
    generate
        for (i = 0; i < CONSTANTS; i = i + 1) begin : memories
            localparam PLACE = i == SCALE ? PRODUCT : i < LOW ? SUM : LIMIT;
            wire [PAIR_BITS-1:0] own = pairs[(PLACE-1)*PAIR_BITS +: PAIR_BITS];
            wire [PAIR_BITS:0] channel = {own, is_second[PLACE]};
            wire [PAIR_BITS:0] place = UNITS == 2 ? {1'b0, own} : channel;
            table_ram #(.WIDTH(UNITS*32), .DEPTH(1 << ENTRY_BITS)) memory (
                .clk(clk), .write(loading1 && row1 == i), .write_row(entry1), .write_data(line),
                .read_row(place[ENTRY_BITS-1:0]), .read_data(constants[i*UNITS*32 +: UNITS*32])
            );
        end
    endgenerate

    // Arithmetic.
    wire [UNITS*32-1:0] accs, numbers;
    wire [PAIR_BITS:0] acc_channel = {pair, second};
    wire [PAIR_BITS:0] acc_entry = UNITS == 2 ? {1'b0, pair} : acc_channel;
    entry_mux #(.WIDTH(UNITS*32), .ENTRIES(ENTRIES)) acc_mux (
        .values(acc), .entry(acc_entry[ENTRY_BITS-1:0]), .value(accs)
    );
    generate
        for (i = 0; i < UNITS; i = i + 1) begin : units
            wire [31:0] converted, product, sum, total;
            wire [31:0] half = UNITS == 2 ? residual_data[i*32 +: 32]
                : is_second[RESIDUAL] ? residual_data[63:32] : residual_data[31:0];
            int_to_float int_to_float (.clk(clk), .value(accs[i*32 +: 32]), .result(converted));
            float_multiply float_multiply (
                .clk(clk), .a(converted), .b(constants[(SCALE*UNITS+i)*32 +: 32]), .result(product)
            );
            float_multiply_add float_multiply_add (
                .clk(clk), .a(product), .b(constants[(FACTOR*UNITS+i)*32 +: 32]),
                .c(constants[(TERM*UNITS+i)*32 +: 32]), .result(sum)
            );
            // -0 is what adds nothing, whatever the sign of a zero.
            float_add float_add (
                .clk(clk), .a(sum), .b(has_residual ? half : 32'h80000000), .result(total)
            );
            float_limit float_limit (
                .clk(clk), .value(total), .low(constants[(LOW*UNITS+i)*32 +: 32]),
                .high(constants[(HIGH*UNITS+i)*32 +: 32]), .result(numbers[i*32 +: 32]),
                .key(keys[i*32 +: 32])
            );
        end
        if (UNITS == 2) begin : both
            assign word = numbers;
        end else begin : in_turn
            reg [31:0] first;
            always @(posedge clk) first <= numbers;
            assign word = {numbers, first};
        end
        for (i = 0; i < DM; i = i + 1) begin : channels
            assign key_write[i] = is_busy[RESULT] && is_pair(i / 2)
                && (UNITS == 2 || is_second[RESULT] == (i % 2 == 1));
        end
    endgenerate

    function is_pair(input integer number);
        is_pair = {{32-PAIR_BITS{1'b0}}, pairs[(RESULT-1)*PAIR_BITS +: PAIR_BITS]} == number;
    endfunction

    assign reads_residual = has_residual && is_busy[RESIDUAL-1] && is_valid[RESIDUAL-1];
    assign residual_offset = offsets[(RESIDUAL-2)*20 +: 20];
    assign key_lane = lanes[(RESULT-1)*LANE_BITS +: LANE_BITS];
    assign key_half = is_half[RESULT];
    assign key_valid = is_valid[RESULT];
    assign ends_tile = is_busy[RESULT] && is_last[RESULT];
    assign writes_next = is_busy[RESULT-1] && (UNITS == 2 || is_second[RESULT-1]);
    assign word_write = is_busy[RESULT] && is_valid[RESULT] && (UNITS == 2 || is_second[RESULT]);
    assign word_offset = offsets[(RESULT-1)*20 +: 20];
    assign idle = !(busy || is_busy != 0);
endmodule
