// Where a load's words go as they come, and when it is done.
`include "isa.vh"

module load_places #(
    parameter DM = 8,
    parameter DN = 8,
    parameter SLICES = 1,
    parameter ACT_ROWS = 1024,
    parameter WEIGHT_ROWS = 2048,
    parameter PARAM_ROWS = 1024,
    parameter TAP_ROWS = 256,
    parameter PASS_ROWS = 64,
    parameter RESIDUAL_ROWS = 4096
) (
    input  wire                           clk,
    input  wire                           reset,
    input  wire                           valid,
    input  wire [255:0]                   instruction,
    output wire                           take,
    input  wire                           response,
    output reg                            active,
    output wire                           finish,  // with the last word
    output wire                           pushes,
    output wire [DN-1:0]                  act_write,
    output wire [$clog2(ACT_ROWS)-1:0]    act_row,
    output wire [DM-1:0]                  weight_write,
    output wire [$clog2(WEIGHT_ROWS)-1:0] weight_row,
    output wire [SLICES-1:0]              slice,  // of the row of act or weight
    output wire [(DM+1)/2-1:0]            param_write,
    output wire [$clog2(PARAM_ROWS)-1:0]  param_row,
    output wire                           tap_write,
    output wire [$clog2(TAP_ROWS)-1:0]    tap_row,
    output wire                           pass_write,
    output wire [$clog2(PASS_ROWS)-1:0]   pass_row,
    output wire                           residual_write,
    output wire [$clog2(RESIDUAL_ROWS)-1:0] residual_row,
    output wire                           buffer_range
);
    localparam LANE_SHIFT = $clog2(DN);
    localparam SLICE_SHIFT = $clog2(SLICES);
    localparam WEIGHT_SHIFT = $clog2(DM * SLICES);
    localparam PARAM_WORDS = (DM + 1) / 2;
    localparam PARAM_SHIFT = $clog2(PARAM_WORDS);

    reg [255:0] x;
    reg [11:0] word;
    reg [13:0] pixel, row;
    reg [31:0] row_index, pixel_index, word_line, count;
    reg [1:0] act_slice;

    wire [2:0] buffer = x[`LOAD_BUFFER];
    wire is_act = buffer == `BUFFER_ACT;
    wire is_weight = buffer == `BUFFER_WEIGHT;
    wire is_param = buffer == `BUFFER_PARAM;
    wire is_tap = buffer == `BUFFER_TAP;
    wire is_pass = buffer == `BUFFER_PASS;
    wire is_residual = buffer == `BUFFER_RESIDUAL;

    wire last_word = word + 1'b1 == x[`LOAD_WORDS];
    wire last_pixel = pixel + 1'b1 == x[`LOAD_PIXELS];
    wire last_row = row + 1'b1 == x[`LOAD_ROWS];

    assign finish = active && response && last_word && last_pixel && last_row;
    assign take = valid && (!active || finish);
    assign pushes = x[`LOAD_PUSH_NEXT];

    // For act: `word` of pixel `index`; else simply the next place.
    wire [31:0] index = row_index + pixel_index;
    wire [31:0] line = is_act ? word_line + (index >> LANE_SHIFT)
        : is_weight ? count >> WEIGHT_SHIFT
        : is_param ? count >> PARAM_SHIFT : count;
    wire [31:0] bank = index & (DN - 1);
    wire [31:0] channel = (count >> SLICE_SHIFT) & (DM - 1);
    wire [31:0] slice_now = is_act ? {30'd0, act_slice} : count & (SLICES - 1);
    wire [31:0] pair = count & (PARAM_WORDS - 1);  // of channels
    wire last_slice = {30'd0, act_slice} == SLICES - 1;
    wire in_range = line < (is_act ? ACT_ROWS : is_weight ? WEIGHT_ROWS : is_param ? PARAM_ROWS
        : is_tap ? TAP_ROWS : is_pass ? PASS_ROWS : RESIDUAL_ROWS);
    wire write = active && response && in_range;

    assign buffer_range = active && response && !in_range;
    assign act_row = line[$clog2(ACT_ROWS)-1:0];
    assign weight_row = line[$clog2(WEIGHT_ROWS)-1:0];
    assign param_row = line[$clog2(PARAM_ROWS)-1:0];
    assign tap_row = line[$clog2(TAP_ROWS)-1:0];
    assign pass_row = line[$clog2(PASS_ROWS)-1:0];
    assign residual_row = line[$clog2(RESIDUAL_ROWS)-1:0];
    assign tap_write = write && is_tap;
    assign pass_write = write && is_pass;
    assign residual_write = write && is_residual;

    genvar i;
    generate
        for (i = 0; i < DN; i = i + 1) begin : act_banks
            assign act_write[i] = write && is_act && bank == i;
        end
        for (i = 0; i < DM; i = i + 1) begin : weight_banks
            assign weight_write[i] = write && is_weight && channel == i;
        end
        for (i = 0; i < SLICES; i = i + 1) begin : slices
            assign slice[i] = slice_now == i;
        end
        for (i = 0; i < PARAM_WORDS; i = i + 1) begin : param_banks
            assign param_write[i] = write && is_param && pair == i;
        end
    endgenerate

    wire [2:0] next_buffer = instruction[`LOAD_BUFFER];
    wire [31:0] next_sram = {18'd0, instruction[`LOAD_SRAM]};

    always @(posedge clk) begin
        if (reset) active <= 0;
        else if (take) active <= 1;
        else if (finish) active <= 0;

        if (take) begin
            x <= instruction;
            {word, pixel, row} <= 0;
            pixel_index <= 0;
            row_index <= {16'd0, instruction[`LOAD_FIRST_PIXEL]};
            word_line <= next_sram;
            count <= next_buffer == `BUFFER_WEIGHT ? next_sram << WEIGHT_SHIFT
                : next_buffer == `BUFFER_PARAM ? next_sram << PARAM_SHIFT : next_sram;
            act_slice <= 0;
        end else if (active && response) begin
            count <= count + 1;
            word <= last_word ? 12'd0 : word + 1'b1;
            act_slice <= last_word || last_slice ? 2'd0 : act_slice + 2'd1;
            if (last_word) word_line <= {18'd0, x[`LOAD_SRAM]};
            else if (last_slice) word_line <= word_line + {18'd0, x[`LOAD_WORD_ROWS]};
            if (last_word) begin
                pixel <= last_pixel ? 14'd0 : pixel + 1'b1;
                pixel_index <= last_pixel ? 32'd0
                    : pixel_index + {28'd0, x[`LOAD_PIXEL_STEP]} + 32'd1;
                if (last_pixel) begin
                    row <= row + 1'b1;
                    row_index <= row_index + {18'd0, x[`LOAD_ROW_PIXELS]};
                end
            end
        end
    end
endmodule
