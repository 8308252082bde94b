// Reads instructions ahead from memory, and hands one after another to its module's queue.
`include "isa.vh"

module fetch #(
    parameter AHEAD = 32  // words that are asked for, or here, before their instruction goes on
) (
    input  wire         clk,
    input  wire         reset,
    input  wire [31:0]  instructions,  // how many, from word 0 of the memory on
    input  wire [31:0]  memory_words,
    output wire         request,
    output wire [31:0]  address,
    input  wire         grant,
    input  wire         response,
    input  wire [63:0]  data,
    output wire [255:0] instruction,
    output wire         push_load,
    output wire         push_compute,
    output wire         push_store,
    input  wire         full_load,
    input  wire         full_compute,
    input  wire         full_store,
    output wire         done,     // all instructions are handed over
    output wire         blocked,  // the next one's queue is full
    output wire         illegal,
    output wire         out_of_range
);
    localparam BITS = $clog2(AHEAD + 1);

    reg [31:0] index;
    reg [33:0] next_word;
    reg [BITS-1:0] ahead;  // words asked for that aren't in `word` yet
    reg [2:0] received;
    reg [255:0] word;

    wire [3:0] opcode = word[3:0];
    wire is_load = opcode == `OP_LOAD;
    wire is_store = opcode == `OP_STORE;
    wire is_compute = opcode == `OP_CONV || opcode == `OP_POOL || opcode == `OP_SETUP
        || opcode == `OP_WAIT || opcode == `OP_FINISH;
    wire complete = received == 4;
    wire full = is_load ? full_load : is_store ? full_store : full_compute;
    wire dispatch = complete && !full && !illegal;
    wire has_rest = is_load ? |word[255:`LOAD_END] : is_store ? |word[255:`STORE_END]
        : opcode == `OP_CONV || opcode == `OP_POOL ? 1'b0  // Their fields fill it.
        : opcode == `OP_SETUP ? |word[255:`SETUP_END] : |word[255:`WAIT_END];

    wire has_next = next_word[33:2] != instructions;
    wire in_range = next_word < {2'd0, memory_words};
    wire [63:0] next_data;
    wire none_waits, unused_full;
    wire take = !none_waits && (!complete || dispatch);

    assign instruction = word;
    assign done = index == instructions;
    assign blocked = complete && full;
    assign illegal = complete && (!(is_load || is_store || is_compute) || has_rest);
    assign request = has_next && in_range && {{32-BITS{1'b0}}, ahead} != AHEAD;
    // What comes before it is judged first.
    assign out_of_range = has_next && !in_range && ahead == 0 && !complete;
    assign address = next_word[31:0];
    assign push_load = dispatch && is_load;
    assign push_store = dispatch && is_store;
    assign push_compute = dispatch && is_compute;

    fifo #(.WIDTH(64), .DEPTH(AHEAD)) words (
        .clk(clk), .reset(reset), .push(response), .push_data(data), .full(unused_full),
        .pop(take), .head(next_data), .empty(none_waits)
    );

    always @(posedge clk) begin
        if (reset) begin
            index <= 0;
            next_word <= 0;
            ahead <= 0;
            received <= 0;
        end else begin
            if (request && grant) next_word <= next_word + 1;
            if (request && grant && !take) ahead <= ahead + 1'b1;
            if (take && !(request && grant)) ahead <= ahead - 1'b1;
            received <= (dispatch ? 3'd0 : received) + {2'd0, take};
            if (dispatch) index <= index + 1;
        end
        if (take) word <= {next_data, word[255:64]};
    end

    wire unused = &{1'b0, unused_full};
endmodule
