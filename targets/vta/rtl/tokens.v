// Dependence tokens from one module to its neighbour: a counter. It stays at CAPACITY, with
// `overflow` set, when more are given.
module tokens #(
    parameter CAPACITY = 8
) (
    input  wire clk,
    input  wire reset,
    input  wire give,
    input  wire take,
    output wire available,
    output wire left,  // after this cycle's take
    output reg  overflow
);
    localparam BITS = $clog2(CAPACITY + 1);

    reg [BITS-1:0] count;

    wire full = {{32-BITS{1'b0}}, count} == CAPACITY;

    assign available = count != 0;
    assign left = {31'd0, take} != {{32-BITS{1'b0}}, count};

    always @(posedge clk) begin
        if (reset) begin
            count <= 0;
            overflow <= 0;
        end else begin
            if (give && !take && full) overflow <= 1;
            else if (give && !take) count <= count + 1'b1;
            else if (take && !give) count <= count - 1'b1;
        end
    end
endmodule
