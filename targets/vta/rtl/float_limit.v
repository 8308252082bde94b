// A number within limits, and as an integer of the same order, a cycle later. Limits come as such
// integers, `low` not above `high`. A limit takes the place of what is beyond it: -0 isn't below 0.
// NaN stays, and is below all as an integer, for it reaches no threshold.
module float_limit (
    input  wire        clk,
    input  wire [31:0] value,
    input  wire [31:0] low,
    input  wire [31:0] high,
    output reg  [31:0] result,
    output reg  [31:0] key
);
    // Of negative numbers all bits but the sign are turned over: -0 comes just before 0.
    wire [31:0] own = {value[31], value[30:0] ^ {31{value[31]}}};
    wire is_nan = value[30:0] > 31'h7f800000;
    wire signed [31:0] compared = value[30:0] == 0 ? 32'd0 : own;
    wire [31:0] limited = $signed(low) > compared ? low : $signed(high) < compared ? high : own;

    always @(posedge clk) begin
        result <= is_nan ? value : {limited[31], limited[30:0] ^ {31{limited[31]}}};
        key <= is_nan ? 32'h80000000 : limited;
    end
endmodule
