// Reads instructions from memory, one after another, and hands each to its module's queue.
`include "isa.vh"

module fetch (
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
    reg [31:0] index;
    reg [31:0] next_word;
    reg [2:0] requested, received;
    reg [255:0] word;

    wire [3:0] opcode = word[3:0];
    wire is_load = opcode == `OP_LOAD;
    wire is_store = opcode == `OP_STORE;
    wire is_compute = opcode == `OP_CONV || opcode == `OP_POOL || opcode == `OP_SETUP
        || opcode == `OP_WAIT || opcode == `OP_FINISH;
    wire complete = received == 4;
    wire dispatch = complete && (is_load ? !full_load : is_store ? !full_store : !full_compute);
    wire has_rest = is_load ? |word[255:`LOAD_END] : is_store ? |word[255:`STORE_END]
        : opcode == `OP_CONV || opcode == `OP_POOL ? |word[255:`CONV_END]
        : opcode == `OP_SETUP ? |word[255:`SETUP_END] : |word[255:`WAIT_END];

    assign instruction = word;
    assign done = index == instructions;
    assign blocked = complete && !dispatch;
    assign illegal = complete && (!(is_load || is_store || is_compute) || has_rest);
    assign out_of_range = request && address >= memory_words;
    assign request = !done && requested != 4;
    assign address = next_word;
    assign push_load = dispatch && !illegal && is_load;
    assign push_store = dispatch && !illegal && is_store;
    assign push_compute = dispatch && !illegal && is_compute;

    always @(posedge clk) begin
        if (reset) begin
            index <= 0;
            next_word <= 0;
            requested <= 0;
            received <= 0;
        end else begin
            if (request && grant) begin
                requested <= requested + 1'b1;
                next_word <= next_word + 1;
            end
            if (response) received <= received + 1'b1;
            if (dispatch && !illegal) begin
                requested <= 0;
                received <= 0;
                index <= index + 1;
            end
        end
        if (response) word <= {data, word[255:64]};
    end
endmodule
