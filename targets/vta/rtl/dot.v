// One count a cycle, added to a sum a cycle later.
module dot (
    input  wire        clk,
    input  wire [63:0] bits,
    input  wire        valid,
    input  wire        first,
    input  wire        shift,
    input  wire        counts,
    output reg  [31:0] sum
);
    wire [6:0] count;
    reg [6:0] count1;

    popcount #(.WIDTH(64)) popcount (.bits(bits), .count(count));

    always @(posedge clk) begin
        count1 <= count;
        if (valid) sum <= (first ? 32'd0 : shift ? {sum[30:0], 1'b0} : sum)
            + (counts ? {25'd0, count1} : 32'd0);
    end
endmodule
