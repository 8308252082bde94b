// Dependence tokens from one module to its neighbour: a counter.
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
    reg [7:0] count;

    assign available = count != 0;
    assign left = count != {7'd0, take};

    always @(posedge clk) begin
        if (reset) begin
            count <= 0;
            overflow <= 0;
        end else begin
            count <= count + {7'd0, give} - {7'd0, take};
            if (give && !take && {24'd0, count} == CAPACITY) overflow <= 1;
        end
    end
endmodule
