// Small memory that is read in the same cycle, as of one number per lane.
module table_ram #(
    parameter WIDTH = 64,
    parameter DEPTH = 64
) (
    input  wire                     clk,
    input  wire                     write,
    input  wire [$clog2(DEPTH)-1:0] write_row,
    input  wire [WIDTH-1:0]         write_data,
    input  wire [$clog2(DEPTH)-1:0] read_row,
    output wire [WIDTH-1:0]         read_data
);
    (* ram_style = "distributed" *) reg [WIDTH-1:0] cells [0:DEPTH-1];

    always @(posedge clk) if (write) cells[write_row] <= write_data;

    assign read_data = cells[read_row];
endmodule
