// Convolutions: steps through passes, taps and words of a tile, one a cycle.
//
//   issue   counters, tap table, pass table
//   stage 1 input position of every lane: is it inside the image, where is it in the buffer
//   stage 2 act banks and weight rows are read
//   stage 3 words turn to their lanes; outside the image, and of the run of a pass, they are 0
//   then    array or pool, epilogue; the next tile steps while they work on this one
`include "isa.vh"

module compute #(
    parameter DM = 8,
    parameter DN = 8,
    parameter DK = 64,
    parameter STAGES = 2,
    parameter ACT_ROWS = 1024,
    parameter WEIGHT_ROWS = 2048,
    parameter PARAM_ROWS = 1024,
    parameter TAP_ROWS = 256,
    parameter PASS_ROWS = 64,
    parameter RESIDUAL_ROWS = 4096,
    parameter OUT_ROWS = 4096,
    parameter FLOAT_UNITS = 0
) (
    input  wire                             clk,
    input  wire                             reset,
    input  wire                             valid,
    input  wire [255:0]                     instruction,
    output wire                             take,
    input  wire                             token_prev,
    input  wire                             token_next,
    output wire                             take_prev,
    output wire                             take_next,
    output wire                             give_prev,
    output wire                             give_next,
    output wire                             idle,
    output wire                             waiting,
    output wire                             finish,
    output wire [$clog2(TAP_ROWS)-1:0]      tap_row,
    input  wire [63:0]                      tap_data,
    output wire [$clog2(PASS_ROWS)-1:0]     pass_row,
    input  wire [63:0]                      pass_data,
    output wire [DN*$clog2(ACT_ROWS)-1:0]   act_rows,
    input  wire [DN*(DK>64?DK:64)-1:0]      act_data,
    output wire [$clog2(WEIGHT_ROWS)-1:0]   weight_row,
    input  wire [DM*(DK>64?DK:64)-1:0]      weight_data,
    output wire [$clog2(PARAM_ROWS)-1:0]    constant_row,
    input  wire [DM*32-1:0]                 constant_data,
    output wire [DM*$clog2(PARAM_ROWS)-1:0] threshold_row,
    input  wire [DM*32-1:0]                 threshold_data,
    output wire [$clog2(RESIDUAL_ROWS)-1:0] residual_row,
    input  wire [63:0]                      residual_data,
    output wire [64/DM-1:0]                 out_write,
    output wire [$clog2(OUT_ROWS)-1:0]      out_row,
    output wire [63:0]                      out_data,
    output wire                             step,  // for counting cycles of work
    output wire                             ends_layer,  // so is the end of what was stored
    output wire                             illegal,
    output wire                             buffer_range
);
    localparam ROW = DK > 64 ? DK : 64;  // bits of a row of act or weight
    localparam STEPS_SHIFT = DK < 64;    // A row has two words of 32 bits.
    localparam NIBBLES = DK / 4;
    localparam NIBBLE_BITS = $clog2(NIBBLES);
    localparam LANE_SHIFT = $clog2(DN);
    localparam LANE_BITS = DN > 1 ? $clog2(DN) : 1;
    localparam ACT_BITS = $clog2(ACT_ROWS);
    localparam WEIGHT_BITS = $clog2(WEIGHT_ROWS);
    localparam PARAM_BITS = $clog2(PARAM_ROWS);
    localparam INDEX_BITS = ACT_BITS + LANE_SHIFT;  // of a pixel in the act buffer
    localparam HOLD_BITS = LANE_BITS + 9;
    // A float unit reads its constants before the first tile comes.
    localparam FLOAT_CONSTANTS = 5;
    localparam FLOAT_SETUP = FLOAT_UNITS == 0 ? 0 : FLOAT_CONSTANTS * DM / FLOAT_UNITS + 4;
    localparam FLOAT_ROUNDS = FLOAT_UNITS == 0 ? 0 : DM / FLOAT_UNITS;

    // One instruction at a time.
    reg active;
    reg [255:0] x;
    wire is_pool_next = instruction[3:0] == `OP_POOL;
    wire is_conv = instruction[3:0] == `OP_CONV || is_pool_next;
    wire is_pool = x[3:0] == `OP_POOL;
    wire is_setup = instruction[3:0] == `OP_SETUP;
    wire has_tokens = (!instruction[`CONV_POP_PREV] || token_prev)
        && (!instruction[`CONV_POP_NEXT] || token_next);
    wire start = !active && valid && has_tokens;
    wire cannot_start, is_wrong_pass;
    wire start_conv = start && is_conv && !cannot_start;
    wire done;

    assign idle = !active;
    assign waiting = !active && valid && !has_tokens;
    assign take = start;
    assign take_prev = start && instruction[`CONV_POP_PREV];
    assign take_next = start && instruction[`CONV_POP_NEXT];
    assign give_prev = (done && x[`CONV_PUSH_PREV])
        || (start && !is_conv && instruction[`CONV_PUSH_PREV]);
    assign give_next = (done && x[`CONV_PUSH_NEXT])
        || (start && !is_conv && instruction[`CONV_PUSH_NEXT]);
    assign finish = start && instruction[3:0] == `OP_FINISH;
    // The compiler puts a wait for nothing behind each layer.
    assign ends_layer = finish || (start && instruction[3:0] == `OP_WAIT
        && instruction[7:4] == 4'd0);

    // What all convolutions to come share.
    reg [4:0] copies;
    reg [6:0] copy_parts;
    reg [13:0] copy_rows, first_tap, first_pass;
    reg [5:0] pixel_rows, plane_parts, plane_rows;  // of planes of codes that lie side by side
    reg is_float, adds_residual, writes_floats;
    reg [13:0] float_rows;
    reg [5:0] pixel_words;
    wire is_wrong_setup = instruction[`SETUP_COPIES] == 0 || instruction[`SETUP_COPIES] > 16
        || {25'd0, instruction[`SETUP_COPY_PARTS]} > 64 / DM
        || {26'd0, instruction[`SETUP_PLANE_PARTS]} >= 64 / DM
        || (instruction[`SETUP_PIXEL_ROWS] != 0 && instruction[`SETUP_COPIES] != 1)
        || (instruction[`SETUP_IS_FLOAT] && (FLOAT_UNITS == 0
            || instruction[`SETUP_COPIES] != 1 || instruction[`SETUP_PIXEL_ROWS] != 0));
    always @(posedge clk) begin
        if (reset) begin
            copies <= 1;
            first_tap <= 0;
            first_pass <= 0;
            is_float <= 0;
            pixel_rows <= 0;
        end else if (start && is_setup) begin
            copies <= instruction[`SETUP_COPIES];
            first_tap <= instruction[`SETUP_FIRST_TAP];
            first_pass <= instruction[`SETUP_FIRST_PASS];
            is_float <= FLOAT_UNITS != 0 && instruction[`SETUP_IS_FLOAT];
            pixel_rows <= instruction[`SETUP_PIXEL_ROWS];
        end
        if (start && is_setup) begin
            copy_parts <= instruction[`SETUP_COPY_PARTS];
            copy_rows <= instruction[`SETUP_COPY_ROWS];
            adds_residual <= instruction[`SETUP_ADDS_RESIDUAL];
            writes_floats <= instruction[`SETUP_WRITES_FLOATS];
            float_rows <= instruction[`SETUP_FLOAT_ROWS];
            pixel_words <= instruction[`SETUP_PIXEL_WORDS];
            plane_parts <= instruction[`SETUP_PLANE_PARTS];
            plane_rows <= instruction[`SETUP_PLANE_ROWS];
        end
    end

    // What no convolution can be.
    wire [13:0] skew = instruction[`CONV_ROW_PIXELS] - {3'd0, instruction[`CONV_OUT_WIDTH]};
    wire [3:0] bits = instruction[`CONV_BITS], residual_bits = instruction[`CONV_RESIDUAL_BITS];
    wire has_copies = copies != 1;
    wire [17:0] copies_now = {13'd0, copies};
    wire [17:0] threshold_rows = ((copies_now << bits) - copies_now) << residual_bits;
    wire [17:0] end_threshold = {4'd0, instruction[`CONV_PARAM]}
        + {6'd0, instruction[`CONV_THRESHOLDS]} + threshold_rows;
    wire [31:0] end_tap = {18'd0, first_tap} + {23'd0, instruction[`CONV_TAPS]};
    wire [31:0] end_pass = {18'd0, first_pass} + {25'd0, instruction[`CONV_PASSES]};
    wire is_wrong = instruction[`CONV_PASSES] == 0 || instruction[`CONV_TAPS] == 0
        || instruction[`CONV_PIXELS] == 0 || instruction[`CONV_OUT_WIDTH] == 0
        || instruction[`CONV_STRIDE_Y] == 0
        || instruction[`CONV_STRIDE_X] == 0 || ({18'd0, skew} & (DN - 1)) != 0
        || bits > 8 || residual_bits > 8 || {26'd0, instruction[`CONV_SUB_WORD]} >= 64 / DM
        || end_tap > TAP_ROWS || end_pass > PASS_ROWS
        || (instruction[`CONV_NARROW] && (is_pool_next || bits != 0 || DM < 4))
        || (has_copies && (is_pool_next || bits == 0 || residual_bits != 0))
        || (pixel_rows != 0 && (bits == 0 || {26'd0, instruction[`CONV_OUT_PART]} >= 64 / DM))
        || (is_float && (is_pool_next || residual_bits != 0 || instruction[`CONV_NARROW]
            || (bits == 0 && !writes_floats) || instruction[`CONV_THRESHOLDS] < FLOAT_CONSTANTS));
    wire is_wrong_conv = instruction[`CONV_COLUMN_HIGH] > instruction[`CONV_OUT_WIDTH]
        || {5'd0, instruction[`CONV_ROW_LOW]} >= instruction[`CONV_ROW_HIGH]
        || {5'd0, instruction[`CONV_COLUMN_LOW]} >= instruction[`CONV_COLUMN_HIGH]
        || (bits == 0 && !is_float ? residual_bits != 0 : {14'd0, end_threshold} > PARAM_ROWS);
    wire is_wrong_pool = instruction[`CONV_PASSES] != {3'd0, bits};
    assign cannot_start = start && (is_setup ? is_wrong_setup
        : is_conv && (is_wrong || (is_pool_next ? is_wrong_pool : is_wrong_conv)));
    assign illegal = cannot_start || is_wrong_pass;

    // Tiles of DN pixels: `next` is made by the lanes, the other one is computed.
    reg setting_up, has_tile;
    wire next_ready, exhausted, lanes_range;
    wire [DN-1:0] next_valid;
    wire [DN*INDEX_BITS-1:0] next_base;
    wire [DN*15-1:0] next_y, next_column;
    wire [DN*PARAM_BITS-1:0] next_border;
    reg [DN-1:0] lane_valid;
    reg [DN*INDEX_BITS-1:0] lane_base;
    reg [DN*15-1:0] lane_y, lane_column;
    reg [DN*PARAM_BITS-1:0] lane_border;
    wire ends_tile;
    wire take_tile = next_ready && (ends_tile || !has_tile);

    lanes #(.DN(DN), .ACT_ROWS(ACT_ROWS), .PARAM_ROWS(PARAM_ROWS)) lanes (
        .clk(clk), .reset(reset), .start(setting_up), .is_pool(is_pool), .x(x), .take(take_tile),
        .ready(next_ready), .exhausted(exhausted), .valid(next_valid), .base(next_base),
        .y(next_y), .column(next_column), .border(next_border), .buffer_range(lanes_range)
    );

    // Counters of the step to issue.
    reg [6:0] pass;
    reg [8:0] tap;
    reg [7:0] word;
    reg [16:0] position;  // of tap and word among the weights of a plane
    reg [21:0] word_row;
    reg half;             // of the pool's memory, for this tile
    // The epilogue takes a tile every so many cycles: the last step of the next one waits for it.
    reg [HOLD_BITS-1:0] interval, hold;
    reg is_in_array;      // between a tile's last step and its epilogue
    wire [7:0] words = pass_data[`PASS_WORDS];
    wire last_word = word + 1'b1 == words;
    wire is_upper = word[0] ^ pass_data[`PASS_UPPER];  // of the two words in a row, if they are two
    wire last_tap = tap + 1'b1 == x[`CONV_TAPS];
    wire last_pass = pass + 1'b1 == x[`CONV_PASSES];
    wire last_step = last_word && last_tap && last_pass;
    // A convolution has all words and taps in a pass, a pool has all passes in a tap.
    wire ends_tap = is_pool ? last_pass : last_word;
    wire ends_pass = is_pool || (last_word && last_tap);
    wire epilogue_idle, array_done;

    assign step = has_tile && !(last_step && (hold != 0 || is_in_array));
    assign ends_tile = step && last_step;
    assign is_wrong_pass = step && (words == 0 || (is_pool && words != 1));
    wire [13:0] tap_line = first_tap + {5'd0, tap}, pass_line = first_pass + {7'd0, pass};
    assign tap_row = tap_line[$clog2(TAP_ROWS)-1:0];
    assign pass_row = pass_line[$clog2(PASS_ROWS)-1:0];

    // Rounds of the epilogue: planes of the residual, then those of the codes of all copies, or
    // words. Two cycles more keep the second unit from the first one's tables, or a pool's planes.
    wire [3:0] x_bits = x[`CONV_BITS], x_residual_bits = x[`CONV_RESIDUAL_BITS];
    wire has_residual = !is_pool && x_residual_bits != 0;
    wire [31:0] word_rounds = x[`CONV_NARROW] ? DM / 4 : (DM + 1) / 2;
    wire [31:0] first_hold = is_float ? FLOAT_SETUP : 0;
    wire [31:0] float_word_rounds = writes_floats ? DM / 2 + {28'd0, x_bits} : {28'd0, x_bits};
    wire [31:0] rounds = is_float
        ? (float_word_rounds > FLOAT_ROUNDS ? float_word_rounds : FLOAT_ROUNDS)
        : x_bits == 0 ? word_rounds : {28'd0, x_bits} * {27'd0, copies}
        + (has_residual ? {28'd0, x_residual_bits} - 1 : 0);
    assign done = active && !setting_up && exhausted && !has_tile && !is_in_array && epilogue_idle;

    always @(posedge clk) begin
        if (reset) begin
            {active, setting_up, has_tile, is_in_array} <= 0;
        end else begin
            if (start_conv) {active, setting_up} <= 2'b11;
            else if (setting_up) setting_up <= 0;
            else if (done) active <= 0;
            if (take_tile) has_tile <= 1;
            else if (ends_tile) has_tile <= 0;
            if (ends_tile) is_in_array <= 1;
            else if (array_done) is_in_array <= 0;
        end
        interval <= (rounds[HOLD_BITS-1:0] << LANE_SHIFT)
            + {{HOLD_BITS-3{1'b0}}, is_float, is_pool || has_residual, 1'b0};
        if (setting_up) hold <= first_hold[HOLD_BITS-1:0];
        else if (ends_tile) hold <= interval - 1'b1;
        else if (hold != 0) hold <= hold - 1'b1;
        if (start) x <= instruction;
        if (ends_tile) half <= !half;
        if (take_tile) begin
            lane_valid <= next_valid;
            lane_base <= next_base;
            lane_y <= next_y;
            lane_column <= next_column;
            lane_border <= next_border;
        end
        if (setting_up || ends_tile) begin
            pass <= 0;
            tap <= 0;
            word <= 0;
            position <= 0;
            word_row <= 0;
        end else if (step) begin
            word <= last_word ? 8'd0 : word + 1'b1;
            if (last_word) word_row <= 0;
            else if (DK >= 64 || is_upper) word_row <= word_row + {8'd0, x[`CONV_WORD_ROWS]};
            position <= last_word && last_tap ? 17'd0 : position + 1'b1;
            if (ends_tap) tap <= last_tap ? 9'd0 : tap + 1'b1;
            if (ends_pass) pass <= last_pass ? 7'd0 : pass + 1'b1;
        end
    end

    // The tile in the epilogue.
    reg [DN-1:0] epilogue_valid;
    reg [DN*PARAM_BITS-1:0] epilogue_border;
    always @(posedge clk) if (ends_tile) begin
        epilogue_valid <= lane_valid;
        epilogue_border <= lane_border;
    end

    // Stage 1. An index has two bits more, so that what lies outside the buffer is seen.
    reg valid1, first1, shift1, ones1, last1;
    reg begins1, ends1;  // the run of words of a pass
    reg [5:0] first_nibble1, last_nibble1;
    reg [2:0] plane1;
    reg half1;
    reg [22:0] row1;
    reg [17:0] weight1;
    reg [DN-1:0] in_image1;
    wire [DN-1:0] in_image;
    wire [DN*(INDEX_BITS+2)-1:0] pixel;
    reg [DN*(INDEX_BITS+2)-1:0] pixel1;
    reg far1;  // the tap's offset is beyond the buffer
    wire begins_pass = tap == 0 && word == 0;
    reg act_half1, weight_half1, act_half2, weight_half2;
    wire signed [19:0] tap_offset = tap_data[`TAP_OFFSET];
    wire [13:0] tap_dy = tap_data[`TAP_DY];
    wire [13:0] tap_dx = tap_data[`TAP_DX];
    wire is_far = tap_offset != {{20-INDEX_BITS{tap_offset[19]}}, tap_offset[INDEX_BITS-1:0]};

    genvar i;
    generate
        for (i = 0; i < DN; i = i + 1) begin : lane_positions
            wire [14:0] y = lane_y[i*15 +: 15] + {tap_dy[13], tap_dy};
            wire [14:0] column = lane_column[i*15 +: 15] + {tap_dx[13], tap_dx};
            assign in_image[i] = lane_valid[i] && y < {4'd0, x[`CONV_IN_HEIGHT]}
                && column < {4'd0, x[`CONV_IN_WIDTH]};
            assign pixel[i*(INDEX_BITS+2) +: INDEX_BITS+2]
                = {2'd0, lane_base[i*INDEX_BITS +: INDEX_BITS]}
                + {{2{tap_offset[19]}}, tap_offset[INDEX_BITS-1:0]};
        end
    endgenerate

    always @(posedge clk) begin
        valid1 <= step && !reset;
        first1 <= is_pool ? tap == 0 : begins_pass && pass == 0;
        shift1 <= begins_pass && pass_data[`PASS_SHIFT];
        ones1 <= pass_data[`PASS_ONES];
        last1 <= last_step;
        {begins1, ends1} <= {word == 0, last_word};
        {first_nibble1, last_nibble1} <= {pass_data[`PASS_FIRST], pass_data[`PASS_LAST]};
        plane1 <= pass[2:0];
        half1 <= half;
        in_image1 <= in_image;
        pixel1 <= pixel;
        far1 <= is_far;
        row1 <= {9'd0, x[`CONV_ACT]} + {9'd0, pass_data[`PASS_ACT]} + {1'd0, word_row};
        weight1 <= {4'd0, x[`CONV_WEIGHT]} + {4'd0, pass_data[`PASS_WEIGHT]}
            + {1'd0, position >> STEPS_SHIFT};
        act_half1 <= is_upper;
        weight_half1 <= position[0];
    end

    // Stage 2: lane j reads bank (j + turn) mod DN.
    reg valid2, first2, shift2, ones2, last2;
    reg [NIBBLES-1:0] nibbles2;  // which of them count
    reg [1:0] slice2;  // of a long word: what pools and look-ups read
    reg [2:0] plane2;
    reg half2;
    reg [DN-1:0] outside2;  // of the image: resets what the lane reads
    reg [LANE_BITS-1:0] turn2;
    wire [LANE_BITS-1:0] turn = DN > 1 ? pixel1[LANE_BITS-1:0] : {LANE_BITS{1'b0}};
    wire [DN-1:0] out_of_range;
    wire [DN*ACT_BITS-1:0] lane_rows;

    generate
        for (i = 0; i < DN; i = i + 1) begin : rows
            wire [INDEX_BITS+1:0] lane_pixel = pixel1[i*(INDEX_BITS+2) +: INDEX_BITS+2];
            wire [ACT_BITS+1:0] row = {2'd0, row1[ACT_BITS-1:0]}
                + lane_pixel[INDEX_BITS+1:LANE_SHIFT];
            assign lane_rows[i*ACT_BITS +: ACT_BITS] = row[ACT_BITS-1:0];
            assign out_of_range[i] = in_image1[i] && (lane_pixel[INDEX_BITS+1] || far1
                || {9'd0, row1} >= ACT_ROWS || {{30-ACT_BITS{1'b0}}, row} >= ACT_ROWS);
        end
    endgenerate

    // Bank i gives lane i - turn its word.
    rotate #(.WIDTH(ACT_BITS), .LANES(DN)) to_banks (
        .values(lane_rows), .turn(-turn), .turned(act_rows)
    );
    assign weight_row = weight1[WEIGHT_BITS-1:0];

    // Nibbles in front of the run in its first word, and behind it in its last one.
    wire [NIBBLE_BITS-1:0] skipped = begins1 ? first_nibble1[NIBBLE_BITS-1:0] : 0;
    wire [NIBBLE_BITS-1:0] left_out = ends1 ? ~last_nibble1[NIBBLE_BITS-1:0] : 0;

    always @(posedge clk) begin
        valid2 <= valid1 && !reset;
        first2 <= first1;
        shift2 <= shift1;
        ones2 <= ones1;
        last2 <= last1;
        nibbles2 <= ({NIBBLES{1'b1}} << skipped) & ({NIBBLES{1'b1}} >> left_out);
        slice2 <= first_nibble1[5:4];
        plane2 <= plane1;
        half2 <= half1;
        outside2 <= ~in_image1;
        turn2 <= turn;
        act_half2 <= act_half1;
        weight_half2 <= weight_half1;
    end

    // Stage 3.
    reg valid3, first3, shift3, ones3, last3;
    reg [2:0] plane3;
    reg half3;
    reg [1:0] slice3;
    reg [DN*DK-1:0] act3;
    reg [DM*DK-1:0] weight3;

    wire [DN*DK-1:0] act_words, turned;
    wire [DM*DK-1:0] weight_words;
    wire [DK-1:0] mask;

    rotate #(.WIDTH(DK), .LANES(DN)) to_lanes (
        .values(act_words), .turn(turn2), .turned(turned)
    );

    generate
        for (i = 0; i < NIBBLES; i = i + 1) begin : nibbles
            assign mask[i*4 +: 4] = {4{nibbles2[i]}};
        end
        for (i = 0; i < DN; i = i + 1) begin : lane_words
            wire [ROW-1:0] row = act_data[i*ROW +: ROW];
            assign act_words[i*DK +: DK] = act_half2 && DK < 64 ? row[ROW-1 -: DK] : row[DK-1:0];
            always @(posedge clk)
                act3[i*DK +: DK] <= outside2[i] ? {DK{1'b0}} : turned[i*DK +: DK] & mask;
        end
        for (i = 0; i < DM; i = i + 1) begin : channel_words
            wire [ROW-1:0] row = weight_data[i*ROW +: ROW];
            assign weight_words[i*DK +: DK]
                = weight_half2 && DK < 64 ? row[ROW-1 -: DK] : row[DK-1:0];
        end
    endgenerate

    always @(posedge clk) begin
        valid3 <= valid2 && !reset;
        first3 <= first2;
        shift3 <= shift2;
        ones3 <= ones2;
        last3 <= last2;
        plane3 <= plane2;
        half3 <= half2;
        slice3 <= slice2;
        weight3 <= weight_words;
    end

    wire [DM*DN*31-1:0] sums;
    wire [DN*24-1:0] one_sums;
    wire [DM*DN-1:0] parts, pool_planes;
    wire [2:0] pool_plane;
    reg half_done, half_read;  // of the tile behind the array, and of the one in the epilogue
    always @(posedge clk) begin
        if (valid3 && last3) half_done <= half3;
        if (array_done) half_read <= half_done;
    end

    wire epilogue_range;

    array #(.DM(DM), .DN(DN), .DK(DK), .STAGES(STAGES)) array (
        .clk(clk), .reset(reset), .valid(valid3), .first(first3), .shift(shift3), .ones(ones3),
        .last(last3), .act(act3), .weight(weight3), .looks_up(x[`CONV_DEPTHWISE]),
        .choices(parts), .done(array_done), .sums(sums), .one_sums(one_sums)
    );

    pool #(.DM(DM), .DN(DN), .DK(DK), .STAGES(STAGES)) pool (
        .clk(clk), .valid(valid3 && is_pool), .first(first3), .plane(plane3), .half(half3),
        .part(x[`CONV_SUB_WORD]), .slice(slice3), .act(act3), .parts(parts),
        .read_plane(pool_plane), .read_half(half_read), .largest(pool_planes)
    );

    epilogue #(
        .DM(DM), .DN(DN), .PARAM_ROWS(PARAM_ROWS), .RESIDUAL_ROWS(RESIDUAL_ROWS),
        .OUT_ROWS(OUT_ROWS), .FLOAT_UNITS(FLOAT_UNITS)
    ) epilogue (
        .clk(clk), .reset(reset), .setup(setting_up), .is_pool(is_pool), .x(x), .copies(copies),
        .copy_parts(copy_parts), .copy_rows(copy_rows), .pixel_rows(pixel_rows),
        .plane_parts(plane_parts), .plane_rows(plane_rows), .is_float(is_float),
        .adds_residual(adds_residual), .writes_floats(writes_floats), .float_rows(float_rows),
        .pixel_words(pixel_words), .start(array_done), .sums(sums),
        .one_sums(one_sums), .lane_valid(epilogue_valid), .border(epilogue_border),
        .idle(epilogue_idle), .constant_row(constant_row), .constant_data(constant_data),
        .threshold_row(threshold_row), .threshold_data(threshold_data),
        .residual_row(residual_row), .residual_data(residual_data), .pool_plane(pool_plane),
        .pool_planes(pool_planes), .out_write(out_write), .out_row(out_row), .out_data(out_data),
        .buffer_range(epilogue_range)
    );

    assign buffer_range = lanes_range || epilogue_range
        || (valid1 && (|out_of_range || (!is_pool && {14'd0, weight1} >= WEIGHT_ROWS)));
endmodule
