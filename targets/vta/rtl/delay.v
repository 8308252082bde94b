// A value some cycles later; without registers if that is none.
module delay #(
    parameter WIDTH = 1,
    parameter CYCLES = 1
) (
    input  wire             clk,
    input  wire [WIDTH-1:0] value,
    output wire [WIDTH-1:0] delayed
);
    generate
        if (CYCLES == 0) begin : none
            assign delayed = value;
            wire unused = clk;
        end else begin : some
            reg [WIDTH-1:0] last;
            always @(posedge clk) last <= value;
            delay #(.WIDTH(WIDTH), .CYCLES(CYCLES - 1)) rest (
                .clk(clk), .value(last), .delayed(delayed)
            );
        end
    endgenerate
endmodule
