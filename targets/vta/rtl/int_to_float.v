// A 32-bit integer as the nearest single-precision number, half to even, four cycles later.
module int_to_float (
    input  wire        clk,
    input  wire [31:0] value,
    output wire [31:0] result
);
    reg sign1, sign2, sign3, sign4;
    reg [31:0] magnitude1, magnitude2, normal3;
    reg [5:0] zeros2;
    reg [7:0] exponent3;
    reg [30:0] result4;
    wire [5:0] zeros;
    wire up = normal3[7] && (normal3[8] || normal3[6:0] != 0);

    leading_zeros #(.WIDTH(32)) leading_zeros (.value(magnitude1), .count(zeros));

    always @(posedge clk) begin
        {sign1, sign2, sign3, sign4} <= {value[31], sign1, sign2, sign3};
        magnitude1 <= value[31] ? -value : value;
        magnitude2 <= magnitude1;
        zeros2 <= zeros;
        normal3 <= magnitude2 << zeros2[4:0];
        exponent3 <= zeros2[5] ? 8'd0 : 8'd158 - {3'd0, zeros2[4:0]};
        // What rounding carries out of the fraction is one more in the exponent.
        result4 <= {exponent3, normal3[30:8]} + {30'd0, up};
    end
    assign result = {sign4, result4};
endmodule
