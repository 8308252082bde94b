// Queue of DEPTH words, 1 or more: `head` is there in the cycle behind its push.
module fifo #(
    parameter WIDTH = 256,
    parameter DEPTH = 8
) (
    input  wire             clk,
    input  wire             reset,
    input  wire             push,
    input  wire [WIDTH-1:0] push_data,
    output wire             full,
    input  wire             pop,
    output wire [WIDTH-1:0] head,
    output wire             empty
);
    localparam INDEX = DEPTH > 1 ? $clog2(DEPTH) : 1;
    localparam COUNT = $clog2(DEPTH + 1);
    localparam [31:0] END = DEPTH - 1;

    reg [WIDTH-1:0] cells [0:DEPTH-1];
    reg [INDEX-1:0] first, last;
    reg [COUNT-1:0] count;

    assign empty = count == 0;
    assign full = {{32-COUNT{1'b0}}, count} == DEPTH;
    assign head = cells[first];

    always @(posedge clk) begin
        if (push) cells[last] <= push_data;
        if (reset) begin
            first <= 0;
            last <= 0;
            count <= 0;
        end else begin
            if (push) last <= last == END[INDEX-1:0] ? {INDEX{1'b0}} : last + 1'b1;
            if (pop) first <= first == END[INDEX-1:0] ? {INDEX{1'b0}} : first + 1'b1;
            if (push && !pop) count <= count + 1'b1;
            if (pop && !push) count <= count - 1'b1;
        end
    end
endmodule
