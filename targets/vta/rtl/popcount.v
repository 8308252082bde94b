// Number of ones among WIDTH bits.
module popcount #(
    parameter WIDTH = 64
) (
    input  wire [WIDTH-1:0]         bits,
    output wire [$clog2(WIDTH):0]   count
);
`ifdef SYNTHESIS
    // An adder tree; synthesis of the 6:3 counters goes here.
    integer i;
    reg [$clog2(WIDTH):0] sum;
    always @* begin
        sum = 0;
        for (i = 0; i < WIDTH; i = i + 1) sum = sum + {{$clog2(WIDTH){1'b0}}, bits[i]};
    end
    assign count = sum;
`else
    wire [31:0] ones = $countones(bits);
    assign count = ones[$clog2(WIDTH):0];
    wire unused = &{1'b0, ones[31:$clog2(WIDTH)+1]};
`endif
endmodule
