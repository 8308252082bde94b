// a * b in single precision, rounded half to even, three cycles later. Operands and the product are
// 0 or normal numbers; the compiler sees to it.
module float_multiply (
    input  wire        clk,
    input  wire [31:0] a,
    input  wire [31:0] b,
    output wire [31:0] result
);
    reg sign1, sign2, sign3, zero1, zero2;
    reg [47:0] product1;
    reg [8:0] exponent1;
    reg [7:0] exponent2;
    reg [22:0] fraction2;
    reg up2;
    reg [30:0] result3;
    wire high = product1[47];  // The product is 2 or more.
    wire [46:0] normal = high ? product1[46:0] : {product1[45:0], 1'b0};
    wire [8:0] exponent = exponent1 - 9'd127 + {8'd0, high};

    always @(posedge clk) begin
        {sign1, sign2, sign3} <= {a[31] ^ b[31], sign1, sign2};
        {zero1, zero2} <= {a[30:23] == 0 || b[30:23] == 0, zero1};
        product1 <= {1'b1, a[22:0]} * {1'b1, b[22:0]};
        exponent1 <= {1'b0, a[30:23]} + {1'b0, b[30:23]};
        exponent2 <= exponent[7:0];
        fraction2 <= normal[46:24];
        up2 <= normal[23] && (normal[24] || normal[22:0] != 0);
        result3 <= zero2 ? 31'd0 : {exponent2, fraction2} + {30'd0, up2};
    end
    assign result = {sign3, result3};
    wire unused = exponent[8];
endmodule
