// One of several values; with one alone, this one.
module entry_mux #(
    parameter WIDTH = 32,
    parameter ENTRIES = 8
) (
    input  wire [ENTRIES*WIDTH-1:0]                        values,
    input  wire [(ENTRIES < 2 ? 1 : $clog2(ENTRIES))-1:0] entry,
    output wire [WIDTH-1:0]                                value
);
    generate
        if (ENTRIES == 1) begin : one
            assign value = values;
            wire unused = entry;
        end else begin : several
            lane_mux #(.WIDTH(WIDTH), .LANES(ENTRIES)) mux (
                .values(values), .lane(entry), .value(value)
            );
        end
    endgenerate
endmodule
