// Memory with one write port, enabled by slices, and one registered read port.
module ram #(
    parameter WIDTH = 64,
    parameter SLICE = 64,
    parameter DEPTH = 1024
) (
    input  wire                     clk,
    input  wire [WIDTH/SLICE-1:0]   write,
    input  wire [$clog2(DEPTH)-1:0] write_row,
    input  wire [WIDTH-1:0]         write_data,
    input  wire                     read,
    input  wire [$clog2(DEPTH)-1:0] read_row,
    output reg  [WIDTH-1:0]         read_data
);
    reg [WIDTH-1:0] cells [0:DEPTH-1];

    genvar i;
    generate
        for (i = 0; i < WIDTH / SLICE; i = i + 1) begin : slices
            always @(posedge clk)
                if (write[i]) cells[write_row][i*SLICE +: SLICE] <= write_data[i*SLICE +: SLICE];
        end
    endgenerate

    always @(posedge clk) if (read) read_data <= cells[read_row];
endmodule
