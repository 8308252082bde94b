// Joins neighbouring word addresses to bursts of up to BEATS words that don't cross 4 KB.
//
// A burst ends when its neighbour is missing for WAIT cycles, so that a slow sender fills bursts.
module burst #(
    parameter BEATS = 16,
    parameter WAIT = 2
) (
    input  wire                   clk,
    input  wire                   reset,
    input  wire                   in_valid,
    output wire                   in_ready,
    input  wire [31:0]            in_address,
    output wire                   out_valid,
    input  wire                   out_ready,
    output reg  [31:0]            out_address,
    output reg  [$clog2(BEATS):0] out_beats
);
    localparam PAGE_BITS = 9;  // 4 KB are 512 words.

    reg open;
    reg [31:0] next_address;
    reg [$clog2(WAIT+1)-1:0] waited;

    wire joins = in_address == next_address && out_beats != BEATS
        && next_address[PAGE_BITS-1:0] != 0;
    wire accept = in_valid && in_ready;

    assign out_valid = open && (in_valid ? !joins : waited == WAIT || out_beats == BEATS);
    assign in_ready = !open || joins || out_ready;

    always @(posedge clk) begin
        if (reset) open <= 0;
        else if (accept) open <= 1;
        else if (out_valid && out_ready) open <= 0;

        if (accept) begin
            next_address <= in_address + 1;
            waited <= 0;
            if (open && joins) out_beats <= out_beats + 1'b1;
            else begin
                out_address <= in_address;
                out_beats <= 1;
            end
        end else if (waited != WAIT) waited <= waited + 1'b1;
    end
endmodule
