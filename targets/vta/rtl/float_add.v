// a + b in single precision as IEEE 754 has it, rounded half to even, six cycles later: with
// infinities, numbers below the normal ones, and NaN, of which there is one here.
module float_add (
    input  wire        clk,
    input  wire [31:0] a,
    input  wire [31:0] b,
    output reg  [31:0] result
);
    // 1: the one of larger magnitude is `large`. An exponent of 0 is 1 without the leading 1.
    wire swap = b[30:0] > a[30:0];
    reg [31:0] large1, small1;
    reg special1;
    reg [31:0] value1;  // of infinities and NaN
    wire is_nan = a[30:0] > 31'h7f800000 || b[30:0] > 31'h7f800000
        || (a[30:23] == 255 && b[30:23] == 255 && a[31] != b[31]);

    always @(posedge clk) begin
        {large1, small1} <= swap ? {b, a} : {a, b};
        special1 <= a[30:23] == 255 || b[30:23] == 255;
        value1 <= is_nan ? 32'h7fc00000 : swap ? b : a;
    end

    // 2: the smaller one shifts down to the larger one's exponent; its last bit keeps what is lost.
    wire [7:0] exponent1 = large1[30:23] == 0 ? 8'd1 : large1[30:23];
    wire [7:0] distance = exponent1 - (small1[30:23] == 0 ? 8'd1 : small1[30:23]);
    wire [53:0] shifted = {small1[30:23] != 0, small1[22:0], 30'd0}
        >> (distance > 27 ? 5'd27 : distance[4:0]);
    reg [7:0] exponent2;
    reg [23:0] large2;
    reg [26:0] small2;
    reg sign2, subtract2, special2;
    reg [31:0] value2;

    always @(posedge clk) begin
        exponent2 <= exponent1;
        large2 <= {large1[30:23] != 0, large1[22:0]};
        small2 <= {shifted[53:28], shifted[27:0] != 0};
        sign2 <= large1[31];
        subtract2 <= large1[31] ^ small1[31];
        {special2, value2} <= {special1, value1};
    end

    // 3: the sum, and 4: where it begins, but no further than the least exponent reaches.
    reg [27:0] sum3, sum4;
    reg [7:0] exponent3, exponent4;
    reg [5:0] zeros4;
    reg sign3, sign4, subtract3, special3, special4;
    reg [31:0] value3, value4;
    wire [5:0] zeros;
    wire [27:0] least = exponent3 > 27 ? 28'd0 : 28'h8000000 >> exponent3[4:0];

    leading_zeros #(.WIDTH(28)) leading_zeros (.value(sum3 | least), .count(zeros));

    always @(posedge clk) begin
        sum3 <= {1'b0, large2, 3'd0} + {subtract2, subtract2 ? ~small2 : small2}
            + {27'd0, subtract2};
        {sign3, subtract3, exponent3} <= {sign2, subtract2, exponent2};
        {special3, value3} <= {special2, value2};
        {sum4, exponent4, zeros4} <= {sum3, exponent3, zeros};
        sign4 <= sign3 && !(subtract3 && sum3 == 0);  // A difference of equals is positive.
        {special4, value4} <= {special3, value3};
    end

    // 5 and 6: as a number, rounded.
    reg [27:0] normal5;
    reg [8:0] exponent5;
    reg sign5, special5;
    reg [31:0] value5;
    wire up = normal5[3] && (normal5[4] || normal5[2:0] != 0);
    wire [31:0] rounded = {normal5[27] ? exponent5 : 9'd0, normal5[26:4]} + {31'd0, up};

    always @(posedge clk) begin
        normal5 <= sum4 << zeros4[4:0];
        exponent5 <= {1'b0, exponent4} + 9'd1 - {3'd0, zeros4};
        sign5 <= sign4;
        {special5, value5} <= {special4, value4};
        result <= special5 ? value5
            : rounded >= 32'h7f800000 ? {sign5, 31'h7f800000} : {sign5, rounded[30:0]};
    end
endmodule
