// Lane j gives the value of lane (j + turn) modulo LANES, a power of two.
module rotate #(
    parameter WIDTH = 64,
    parameter LANES = 8
) (
    input  wire [LANES*WIDTH-1:0]                     values,
    input  wire [(LANES > 1 ? $clog2(LANES) : 1)-1:0] turn,  // 0 of a single lane
    output wire [LANES*WIDTH-1:0]                     turned
);
    localparam BITS = $clog2(LANES);

    genvar i;
    generate
        for (i = 0; i <= BITS; i = i + 1) begin : stage
            wire [LANES*WIDTH-1:0] lanes;
            if (i == 0) assign lanes = values;
            else assign lanes = !turn[i-1] ? stage[i-1].lanes
                : {stage[i-1].lanes[(WIDTH<<(i-1))-1:0],
                   stage[i-1].lanes[LANES*WIDTH-1:WIDTH<<(i-1)]};
        end
    endgenerate

    assign turned = stage[BITS].lanes;
    wire unused = &{1'b0, turn};
endmodule
