// The out buffer to memory: runs of words. A store gives its token when memory has acknowledged
// them, so that what waits for it may read them.
`include "isa.vh"

module store #(
    parameter OUT_ROWS = 4096
) (
    input  wire                        clk,
    input  wire                        reset,
    input  wire                        valid,
    input  wire [255:0]                instruction,
    output wire                        take,
    input  wire                        token,
    output wire                        take_token,
    output wire                        give_token,
    output wire                        idle,
    output wire                        waiting,
    input  wire [31:0]                 memory_words,
    output wire                        request,
    output wire [31:0]                 address,
    output wire [63:0]                 data,
    output wire                        notify,  // the word ends a store that gives a token
    input  wire                        grant,
    input  wire                        notified,
    input  wire                        none,    // of the words written is still to be acknowledged
    output wire                        out_read,
    output wire [$clog2(OUT_ROWS)-1:0] out_row,
    input  wire [63:0]                 out_data,
    output wire                        illegal,
    output wire                        memory_range,
    output wire                        buffer_range
);
    reg active, has_data;
    reg [255:0] x;
    reg [31:0] line;   // row of the buffer to read next
    reg [31:0] left;   // words still to be read
    reg [11:0] word;   // of the one being written
    reg [31:0] row_address;

    wire pops = instruction[`STORE_POP_PREV];
    wire [31:0] total = instruction[`STORE_ROWS] * {20'd0, instruction[`STORE_WORDS]};
    // An empty one gives its token when all before it have given theirs.
    wire start = !active && valid && (!pops || token) && (total != 0 || none);
    wire advance = active && (!has_data || grant);
    wire finish = active && has_data && grant && left == 0;
    wire last_word = word + 1'b1 == x[`STORE_WORDS];

    assign idle = !active && none;
    assign waiting = idle && valid && pops && !token;
    assign take = start;
    assign take_token = start && pops;
    assign give_token = (start && total == 0 && instruction[`STORE_PUSH_PREV])
        || notified;
    assign notify = left == 0 && x[`STORE_PUSH_PREV];
    assign illegal = start && (instruction[`STORE_POP_NEXT] || instruction[`STORE_PUSH_NEXT]);
    assign request = active && has_data && address < memory_words;
    assign address = row_address + {20'd0, word};
    assign data = out_data;
    assign memory_range = active && has_data && address >= memory_words;
    assign out_read = advance && left != 0;
    assign out_row = line[$clog2(OUT_ROWS)-1:0];
    assign buffer_range = out_read && line >= OUT_ROWS;

    always @(posedge clk) begin
        if (reset) begin
            active <= 0;
            has_data <= 0;
        end else if (start) begin
            active <= total != 0;
            has_data <= 0;
        end else begin
            if (finish) active <= 0;
            if (advance) has_data <= left != 0;
        end
        if (start) begin
            x <= instruction;
            line <= {18'd0, instruction[`STORE_SRAM]};
            left <= total;
            word <= 0;
            row_address <= instruction[`STORE_DRAM];
        end
        if (out_read) begin
            line <= line + 1;
            left <= left - 1;
        end
        if (request && grant) begin
            word <= last_word ? 12'd0 : word + 1'b1;
            if (last_word) row_address <= row_address + {8'd0, x[`STORE_ROW_WORDS]};
        end
    end
endmodule
