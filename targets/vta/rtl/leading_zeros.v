// How many zeros stand above the highest one; of no ones, WIDTH or a little more.
module leading_zeros #(
    parameter WIDTH = 32
) (
    input  wire [WIDTH-1:0]       value,
    output wire [$clog2(WIDTH):0] count
);
    localparam LEVELS = $clog2(WIDTH);
    localparam SIZE = 1 << LEVELS;

    // Halves are counted first: the upper one's count, or the lower one's with all of the upper.
    wire [SIZE-1:0] padded = {value, {SIZE-WIDTH{1'b0}}};
    genvar level, i;
    generate
        for (level = 0; level <= LEVELS; level = level + 1) begin : levels
            wire [(SIZE >> level)*(level+1)-1:0] counts;
            for (i = 0; i < SIZE >> level; i = i + 1) begin : parts
                if (level == 0) assign counts[i] = !padded[i];
                else begin : halves
                    wire [level-1:0] low, high;
                    assign low = levels[level-1].counts[2*i*level +: level];
                    assign high = levels[level-1].counts[(2*i+1)*level +: level];
                    // All of a half's 2^(level-1) bits are 0 where its count's highest bit is 1.
                    if (level == 1) assign counts[i*2 +: 2] = {high & low, high & !low};
                    else assign counts[i*(level+1) +: level+1] = high[level-1]
                        ? {low[level-1], !low[level-1], low[level-2:0]} : {1'b0, high};
                end
            end
        end
    endgenerate
    assign count = levels[LEVELS].counts;
endmodule
