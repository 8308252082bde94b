// Number of ones among WIDTH bits, at most 256; with STAGES = 2 a cycle later.
//
// For synthesis: counters of six bits, three LUTs each, and a tree of adders, whose carry inputs
// take a bit each. So each LUT makes the bits that are left one fewer. FIRST = 3 begins with
// counters of three bits: where each bit is an xor of two signals, a LUT of six inputs holds three.
module popcount #(
    parameter WIDTH = 64,
    parameter FIRST = 6,
    parameter STAGES = 1,
    parameter REGISTERED = 13  // bits that are counted before the second stage, at most
) (
    input  wire                       clk,
    input  wire [WIDTH-1:0]           bits,
    output wire [$clog2(WIDTH+1)-1:0] count
);
    localparam BITS = $clog2(WIDTH + 1);
`ifdef SYNTHESIS
    localparam [63:0] TWOS = 64'h8117177e177e7ee8, FOURS = 64'hfee8e880e8808000;
    localparam TRIPLES = WIDTH / 3, REST = WIDTH % 3;
    // A number of w bits is used up to its end, if it counts 6, 13, 27, ... bits.
    localparam LEFT = WIDTH > 111 ? 111 : WIDTH > 55 ? 55 : WIDTH > 27 ? 27 : WIDTH > 13 ? 13 : 6;
    localparam RIGHT = WIDTH - LEFT - 1;
    // Registers behind what is counted here, and before.
    localparam BEHIND = WIDTH > REGISTERED ? 0 : STAGES - 1;
    localparam BEFORE = STAGES - 1 - BEHIND;

    wire [BITS-1:0] counted;
    delay #(.WIDTH(BITS), .CYCLES(BEHIND)) stage (.clk(clk), .value(counted), .delayed(count));

    genvar i;
    generate
        if (FIRST == 3) begin : triples
            wire [TRIPLES+REST-1:0] ones;
            wire [TRIPLES-1:0] twos;
            wire [$clog2(TRIPLES+REST+1)-1:0] one_count;
            wire [$clog2(TRIPLES+1)-1:0] two_count;
            for (i = 0; i < TRIPLES; i = i + 1) begin : triple
                wire a = bits[3*i], b = bits[3*i+1], c = bits[3*i+2];
                assign ones[i] = a ^ b ^ c;
                assign twos[i] = a & b | a & c | b & c;
            end
            for (i = 0; i < REST; i = i + 1) assign ones[TRIPLES+i] = bits[3*TRIPLES+i];
            popcount #(
                .WIDTH(TRIPLES + REST), .STAGES(1 + BEFORE), .REGISTERED(REGISTERED)
            ) count_ones (.clk(clk), .bits(ones), .count(one_count));
            popcount #(
                .WIDTH(TRIPLES), .STAGES(1 + BEFORE), .REGISTERED(REGISTERED)
            ) count_twos (.clk(clk), .bits(twos), .count(two_count));
            assign counted = {{BITS{1'b0}}, one_count} + {{BITS{1'b0}}, two_count, 1'b0};
        end else if (WIDTH <= 6) begin : counter
            wire [5:0] group = {6'd0, bits};
            wire [2:0] number = {FOURS[group], TWOS[group], ^bits};
            assign counted = number[BITS-1:0];
        end else begin : adder
            wire [$clog2(LEFT+1)-1:0] left;
            wire carry;
            wire [BITS:0] right, sum;
            popcount #(
                .WIDTH(LEFT), .STAGES(1 + BEFORE), .REGISTERED(REGISTERED)
            ) count_left (.clk(clk), .bits(bits[LEFT:1]), .count(left));
            delay #(.CYCLES(BEFORE)) wait_for_numbers (
                .clk(clk), .value(bits[0]), .delayed(carry)
            );
            if (RIGHT > 0) begin : two
                wire [$clog2(RIGHT+1)-1:0] number;
                popcount #(
                    .WIDTH(RIGHT), .STAGES(1 + BEFORE), .REGISTERED(REGISTERED)
                ) count_right (.clk(clk), .bits(bits[WIDTH-1:LEFT+1]), .count(number));
                assign right = {{BITS{1'b0}}, number};
            end else assign right = 0;
            // The lowest bits are equal: their carry is this bit, without a LUT.
            assign sum = {{BITS{1'b0}}, left, carry} + {right[BITS-1:0], carry};
            assign counted = sum[BITS:1];
        end
    endgenerate
`else
    wire [31:0] ones = $countones(bits);
    delay #(.WIDTH(BITS), .CYCLES(STAGES - 1)) stage (
        .clk(clk), .value(ones[BITS-1:0]), .delayed(count)
    );
    wire unused = &{1'b0, FIRST == 3, REGISTERED == 0, ones[31:BITS]};
`endif
endmodule
