// A register between two handshakes: valid, ready and data of either side come from flip-flops.
module stage #(
    parameter WIDTH = 8
) (
    input  wire             clk,
    input  wire             reset,
    input  wire             in_valid,
    output wire             in_ready,
    input  wire [WIDTH-1:0] in_data,
    output reg              out_valid,
    input  wire             out_ready,
    output reg  [WIDTH-1:0] out_data
);
    // What came in the cycle in which the other side stopped.
    reg spare_valid;
    reg [WIDTH-1:0] spare;

    wire advance = !out_valid || out_ready;

    assign in_ready = !spare_valid;

    always @(posedge clk) begin
        if (reset) begin
            out_valid <= 0;
            spare_valid <= 0;
        end else begin
            if (advance) out_valid <= spare_valid || in_valid;
            spare_valid <= !advance && (spare_valid || in_valid);
        end
        if (advance) out_data <= spare_valid ? spare : in_data;
        if (in_ready) spare <= in_data;
    end
endmodule
