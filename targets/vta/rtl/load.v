// Memory to buffers: rows x pixels x words. Requests run ahead; responses come in the same order.
// Rows of act and weight banks have SLICES words of the memory.
`include "isa.vh"

module load #(
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
    input  wire                           token,
    output wire                           take_token,
    output wire                           give_token,
    output wire                           idle,
    output wire                           waiting,
    input  wire [31:0]                    memory_words,
    output wire                           request,
    output wire [31:0]                    address,
    input  wire                           grant,
    input  wire                           response,
    output wire [DN-1:0]                  act_write,
    output wire [$clog2(ACT_ROWS)-1:0]    act_row,
    output wire [DM-1:0]                  weight_write,
    output wire [$clog2(WEIGHT_ROWS)-1:0] weight_row,
    output wire [SLICES-1:0]              slice,       // of the row of act or weight
    output wire [(DM+1)/2-1:0]            param_write,
    output wire [$clog2(PARAM_ROWS)-1:0]  param_row,
    output wire                           tap_write,
    output wire [$clog2(TAP_ROWS)-1:0]    tap_row,
    output wire                           pass_write,
    output wire [$clog2(PASS_ROWS)-1:0]   pass_row,
    output wire                           residual_write,
    output wire [$clog2(RESIDUAL_ROWS)-1:0] residual_row,
    output wire                           illegal,
    output wire                           memory_range,
    output wire                           buffer_range
);
    localparam LANE_SHIFT = $clog2(DN);
    localparam SLICE_SHIFT = $clog2(SLICES);
    localparam WEIGHT_SHIFT = $clog2(DM * SLICES);
    localparam PARAM_WORDS = (DM + 1) / 2;
    localparam PARAM_SHIFT = $clog2(PARAM_WORDS);

    reg active;
    reg [255:0] x;

    // The request to come.
    reg requesting;
    reg [11:0] word;
    reg [13:0] pixel, row;
    reg [31:0] row_address, pixel_address;
    // The response to come.
    reg [11:0] r_word;
    reg [13:0] r_pixel, r_row;
    reg [31:0] r_row_index, r_line, r_count;
    reg [1:0] r_slice;  // of act

    wire [2:0] buffer = x[`LOAD_BUFFER];
    wire [11:0] words = x[`LOAD_WORDS];
    wire [13:0] pixels = x[`LOAD_PIXELS];
    wire [13:0] rows = x[`LOAD_ROWS];
    wire is_act = buffer == `BUFFER_ACT;
    wire is_weight = buffer == `BUFFER_WEIGHT;
    wire is_param = buffer == `BUFFER_PARAM;
    wire is_tap = buffer == `BUFFER_TAP;
    wire is_pass = buffer == `BUFFER_PASS;
    wire is_residual = buffer == `BUFFER_RESIDUAL;

    wire last_word = word + 1'b1 == words;
    wire last_pixel = pixel + 1'b1 == pixels;
    wire last_row = row + 1'b1 == rows;
    wire r_last_word = r_word + 1'b1 == words;
    wire r_last_pixel = r_pixel + 1'b1 == pixels;
    wire r_last_row = r_row + 1'b1 == rows;

    wire pops = instruction[`LOAD_POP_NEXT];
    wire start = !active && valid && (!pops || token);
    wire is_empty = instruction[`LOAD_ROWS] == 0 || instruction[`LOAD_PIXELS] == 0
        || instruction[`LOAD_WORDS] == 0;
    wire finish = active && response && r_last_word && r_last_pixel && r_last_row;

    assign idle = !active;
    assign waiting = !active && valid && pops && !token;
    assign take = start;
    assign take_token = start && pops;
    assign give_token = (start && is_empty && instruction[`LOAD_PUSH_NEXT])
        || (finish && x[`LOAD_PUSH_NEXT]);
    assign illegal = start && (instruction[`LOAD_POP_PREV] || instruction[`LOAD_PUSH_PREV]
        || instruction[`LOAD_BUFFER] >= `BUFFER_OUT);

    assign request = active && requesting;
    assign address = pixel_address + {20'd0, word};
    assign memory_range = request && address >= memory_words;

    // Where a response goes. For act: word r_word of pixel `index`; else simply the next place.
    wire [31:0] index = r_row_index + {18'd0, r_pixel};
    wire [31:0] line = is_act ? r_line + (index >> LANE_SHIFT)
        : is_weight ? r_count >> WEIGHT_SHIFT
        : is_param ? r_count >> PARAM_SHIFT : r_count;
    wire [31:0] bank = index & (DN - 1);
    wire [31:0] channel = (r_count >> SLICE_SHIFT) & (DM - 1);
    wire [31:0] slice_now = is_act ? {30'd0, r_slice} : r_count & (SLICES - 1);
    wire [31:0] pair = r_count & (PARAM_WORDS - 1);  // of channels
    wire last_slice = {30'd0, r_slice} == SLICES - 1;
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
        else if (start) active <= !is_empty;
        else if (finish) active <= 0;

        if (start) begin
            x <= instruction;
            requesting <= 1;
            {word, pixel, row} <= 0;
            row_address <= instruction[`LOAD_DRAM];
            pixel_address <= instruction[`LOAD_DRAM];
            {r_word, r_pixel, r_row} <= 0;
            r_row_index <= {16'd0, instruction[`LOAD_FIRST_PIXEL]};
            r_line <= next_sram;
            r_count <= next_buffer == `BUFFER_WEIGHT ? next_sram << WEIGHT_SHIFT
                : next_buffer == `BUFFER_PARAM ? next_sram << PARAM_SHIFT : next_sram;
            r_slice <= 0;
        end
        if (request && grant) begin
            word <= last_word ? 12'd0 : word + 1'b1;
            if (last_word) begin
                pixel <= last_pixel ? 14'd0 : pixel + 1'b1;
                pixel_address <= pixel_address + {16'd0, x[`LOAD_PIXEL_WORDS]};
                if (last_pixel) begin
                    row <= row + 1'b1;
                    row_address <= row_address + {8'd0, x[`LOAD_ROW_WORDS]};
                    pixel_address <= row_address + {8'd0, x[`LOAD_ROW_WORDS]};
                    if (last_row) requesting <= 0;
                end
            end
        end
        if (active && response) begin
            r_count <= r_count + 1;
            r_word <= r_last_word ? 12'd0 : r_word + 1'b1;
            r_slice <= r_last_word || last_slice ? 2'd0 : r_slice + 2'd1;
            if (r_last_word) r_line <= {18'd0, x[`LOAD_SRAM]};
            else if (last_slice) r_line <= r_line + {18'd0, x[`LOAD_WORD_ROWS]};
            if (r_last_word) begin
                r_pixel <= r_last_pixel ? 14'd0 : r_pixel + 1'b1;
                if (r_last_pixel) begin
                    r_row <= r_row + 1'b1;
                    r_row_index <= r_row_index + {18'd0, x[`LOAD_ROW_PIXELS]};
                end
            end
        end
    end
endmodule
