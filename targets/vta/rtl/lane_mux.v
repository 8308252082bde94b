// The value of one lane.
module lane_mux #(
    parameter WIDTH = 32,
    parameter LANES = 8
) (
    input  wire [LANES*WIDTH-1:0]                     values,
    input  wire [(LANES > 1 ? $clog2(LANES) : 1)-1:0] lane,
    output wire [WIDTH-1:0]                           value
);
    genvar i, j;
    generate
        for (i = 0; i < WIDTH; i = i + 1) begin : bits
            wire [LANES-1:0] candidates;
            for (j = 0; j < LANES; j = j + 1) assign candidates[j] = values[j*WIDTH + i];
            assign value[i] = candidates[lane];
        end
    endgenerate
endmodule
