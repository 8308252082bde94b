// Units of float arithmetic side by side, for the same operands.
module float_units (
    input  wire        clk,
    input  wire [31:0] a,
    input  wire [31:0] b,
    input  wire [31:0] c,
    output wire [31:0] converted,
    output wire [31:0] product,
    output wire [31:0] multiplied_added,
    output wire [31:0] sum
);
    int_to_float int_to_float (.clk(clk), .value(a), .result(converted));
    float_multiply float_multiply (.clk(clk), .a(a), .b(b), .result(product));
    float_multiply_add float_multiply_add (
        .clk(clk), .a(a), .b(b), .c(c), .result(multiplied_added)
    );
    float_add float_add (.clk(clk), .a(a), .b(b), .result(sum));
endmodule
