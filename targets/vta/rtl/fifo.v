// Queue of instructions; DEPTH is a power of two.
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
    localparam INDEX = $clog2(DEPTH);

    reg [WIDTH-1:0] cells [0:DEPTH-1];
    reg [INDEX:0] first, last;

    assign empty = first == last;
    assign full = first[INDEX-1:0] == last[INDEX-1:0] && !empty;
    assign head = cells[first[INDEX-1:0]];

    always @(posedge clk) begin
        if (push) cells[last[INDEX-1:0]] <= push_data;
        if (reset) begin
            first <= 0;
            last <= 0;
        end else begin
            if (push) last <= last + 1'b1;
            if (pop) first <= first + 1'b1;
        end
    end
endmodule
