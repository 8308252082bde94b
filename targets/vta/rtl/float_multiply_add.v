// a * b + c in single precision, rounded once, half to even, seven cycles later. Operands and what
// comes out are 0 or normal numbers; the compiler sees to it.
//
// The product has 48 bits, the lower ones of a window of 74. The term begins in the highest 24, and
// shifts down as far as its exponent asks for. Where it is too large for that, the product is less
// than a quarter of its last place, and all such products round it alike.
module float_multiply_add (
    input  wire        clk,
    input  wire [31:0] a,
    input  wire [31:0] b,
    input  wire [31:0] c,
    output wire [31:0] result
);
    // 1: product, and how far the term shifts.
    wire no_product = a[30:23] == 0 || b[30:23] == 0;
    wire product_sign = a[31] ^ b[31];
    wire signed [10:0] product_top = {3'd0, a[30:23]} + {3'd0, b[30:23]} - 11'd100;
    wire signed [10:0] shift = product_top - {3'd0, c[30:23]};
    wire is_large = shift < 0 || no_product;
    reg [47:0] product1;
    reg no_product1, no_term1, sign1, subtract1;
    reg [6:0] shift1;
    reg [23:0] term1;
    reg [10:0] top1;  // exponent of the window's highest bit

    always @(posedge clk) begin
        product1 <= {1'b1, a[22:0]} * {1'b1, b[22:0]};
        no_product1 <= no_product;
        no_term1 <= c[30:23] == 0;
        sign1 <= product_sign;
        subtract1 <= product_sign ^ c[31];
        shift1 <= is_large ? 7'd0 : shift > 74 ? 7'd74 : shift[6:0];
        term1 <= {1'b1, c[22:0]};
        top1 <= is_large && c[30:23] != 0 ? {3'd0, c[30:23]} : product_top;
    end

    // 2: the term shifts; `lost` says that ones left the window.
    wire [97:0] shifted = {term1, 74'd0} >> shift1;
    reg [73:0] term2;
    reg [47:0] product2;
    reg sign2, subtract2, lost2;
    reg [10:0] top2;

    always @(posedge clk) begin
        term2 <= no_term1 ? 74'd0 : shifted[97:24];
        lost2 <= !no_term1 && shifted[23:0] != 0;
        product2 <= no_product1 ? 48'd0 : product1;
        {sign2, subtract2, top2} <= {sign1, subtract1, top1};
    end

    // 3: the sum. What was lost makes a difference less than what stays in the window says.
    reg [74:0] sum3;
    reg sign3, subtract3, lost3;
    reg [10:0] top3;

    always @(posedge clk) begin
        sum3 <= {27'd0, product2} + {subtract2, subtract2 ? ~term2 : term2}
            + {74'd0, subtract2 && !lost2};
        {sign3, subtract3, lost3, top3} <= {sign2, subtract2, lost2, top2};
    end

    // 4: its magnitude and sign; a difference of equals is positive.
    wire is_negative = sum3[74];
    reg [73:0] sum4;
    reg sign4, lost4;
    reg [10:0] top4;

    always @(posedge clk) begin
        sum4 <= (is_negative ? ~sum3[73:0] : sum3[73:0]) + {73'd0, is_negative};
        sign4 <= sum3 == 0 ? sign3 && !subtract3 : sign3 ^ is_negative;
        {lost4, top4} <= {lost3, top3};
    end

    // 5: where it begins.
    wire [7:0] zeros;
    reg [73:0] sum5;
    reg [7:0] zeros5;
    reg sign5, lost5;
    reg [10:0] top5;

    leading_zeros #(.WIDTH(74)) leading_zeros (.value(sum4), .count(zeros));

    always @(posedge clk) begin
        {sum5, zeros5} <= {sum4, zeros};
        {sign5, lost5, top5} <= {sign4, lost4, top4};
    end

    // 6 and 7: as a number, rounded.
    reg [73:0] normal6;
    reg sign6, sign7, lost6;
    reg [10:0] exponent6;
    reg [30:0] result7;
    wire up = normal6[49] && (normal6[50] || lost6 || normal6[48:0] != 0);

    always @(posedge clk) begin
        normal6 <= sum5 << zeros5[6:0];
        exponent6 <= top5 - {3'd0, zeros5};
        {sign6, lost6, sign7} <= {sign5, lost5, sign6};
        result7 <= normal6[73] ? {exponent6[7:0], normal6[72:50]} + {30'd0, up} : 31'd0;
    end
    assign result = {sign7, result7};
    wire unused = &{1'b0, exponent6[10:8]};
endmodule
