// Memory to buffers: rows x pixels x words. The requests of a load begin while the words of those
// before are on their way; words come in the same order. Rows of act and weight banks have SLICES
// words of the memory.
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
    parameter RESIDUAL_ROWS = 4096,
    parameter LOADS = 4  // that wait behind the one whose words come
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
    reg requesting;
    reg [255:0] x;

    wire full, none_waits, coming, take_place, finish, pushes, last;
    wire [255:0] head;
    wire pops = instruction[`LOAD_POP_NEXT];
    wire is_empty = instruction[`LOAD_ROWS] == 0 || instruction[`LOAD_PIXELS] == 0
        || instruction[`LOAD_WORDS] == 0;
    // Nothing comes for an empty one; it gives its token when all before it have given theirs.
    wire has_place = is_empty ? none_waits && !coming : !full;
    wire start = !requesting && valid && (!pops || token) && has_place;
    wire begins = start && !is_empty;
    wire advance = request && grant;

    assign idle = !requesting && none_waits && !coming;
    assign waiting = idle && valid && pops && !token;
    assign take = start;
    assign take_token = start && pops;
    assign give_token = (start && is_empty && instruction[`LOAD_PUSH_NEXT]) || (finish && pushes);
    assign illegal = start && (instruction[`LOAD_POP_PREV] || instruction[`LOAD_PUSH_PREV]
        || instruction[`LOAD_BUFFER] >= `BUFFER_OUT);
    assign request = requesting && address < memory_words;
    assign memory_range = requesting && address >= memory_words;

    load_addresses addresses (
        .clk(clk), .start(begins), .first(instruction[`LOAD_DRAM]), .advance(advance),
        .rows(x[`LOAD_ROWS]), .row_words(x[`LOAD_ROW_WORDS]), .pixels(x[`LOAD_PIXELS]),
        .pixel_words(x[`LOAD_PIXEL_WORDS]), .words(x[`LOAD_WORDS]), .address(address),
        .last(last)
    );
    fifo #(.DEPTH(LOADS)) requested (
        .clk(clk), .reset(reset), .push(begins), .push_data(instruction), .full(full),
        .pop(take_place), .head(head), .empty(none_waits)
    );
    load_places #(
        .DM(DM), .DN(DN), .SLICES(SLICES), .ACT_ROWS(ACT_ROWS), .WEIGHT_ROWS(WEIGHT_ROWS),
        .PARAM_ROWS(PARAM_ROWS), .TAP_ROWS(TAP_ROWS), .PASS_ROWS(PASS_ROWS),
        .RESIDUAL_ROWS(RESIDUAL_ROWS)
    ) places (
        .clk(clk), .reset(reset), .valid(!none_waits), .instruction(head), .take(take_place),
        .response(response), .active(coming), .finish(finish), .pushes(pushes),
        .act_write(act_write), .act_row(act_row), .weight_write(weight_write),
        .weight_row(weight_row), .slice(slice), .param_write(param_write), .param_row(param_row),
        .tap_write(tap_write), .tap_row(tap_row), .pass_write(pass_write), .pass_row(pass_row),
        .residual_write(residual_write), .residual_row(residual_row), .buffer_range(buffer_range)
    );

    always @(posedge clk) begin
        if (reset) requesting <= 0;
        else if (begins) requesting <= 1;
        else if (advance && last) requesting <= 0;
        if (begins) x <= instruction;
    end
endmodule
