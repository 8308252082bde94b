// Reads of words as bursts on AXI4: AR takes the bursts, and ids wait for the words of R.
module axi_read #(
    parameter BEATS = 16,
    parameter READS = 64
) (
    input  wire        clk,
    input  wire        reset,

    input  wire        read_valid,
    output wire        read_ready,
    input  wire [31:0] read_address,
    input  wire [3:0]  read_id,
    output wire        response_valid,
    input  wire        response_ready,
    output wire [63:0] response_data,
    output wire [3:0]  response_id,
    output wire        response_error,

    output wire        arvalid,
    input  wire        arready,
    output wire [34:0] araddr,
    output wire [7:0]  arlen,
    input  wire        rvalid,
    output wire        rready,
    input  wire [63:0] rdata,
    input  wire [1:0]  rresp
);
    localparam COUNT = $clog2(BEATS) + 1;

    wire ids_full, ids_empty, burst_ready, burst_valid, burst_go;
    wire [31:0] burst_address;
    wire [COUNT-1:0] beats;
    wire accept = read_valid && read_ready;

    assign read_ready = burst_ready && !ids_full;

    burst #(.BEATS(BEATS)) bursts (
        .clk(clk), .reset(reset), .in_valid(read_valid && !ids_full), .in_ready(burst_ready),
        .in_address(read_address), .out_valid(burst_valid), .out_ready(burst_go),
        .out_address(burst_address), .out_beats(beats)
    );
    stage #(.WIDTH(32 + COUNT)) ar_stage (
        .clk(clk), .reset(reset), .in_valid(burst_valid), .in_ready(burst_go),
        .in_data({burst_address, beats - 1'b1}), .out_valid(arvalid), .out_ready(arready),
        .out_data({araddr[34:3], arlen[COUNT-1:0]})
    );
    assign araddr[2:0] = 0;
    assign arlen[7:COUNT] = 0;

    // A word that nobody asked for is dropped.
    wire word_valid;
    assign response_valid = word_valid && !ids_empty;

    stage #(.WIDTH(65)) r_stage (
        .clk(clk), .reset(reset), .in_valid(rvalid), .in_ready(rready), .in_data({rresp[1], rdata}),
        .out_valid(word_valid), .out_ready(response_ready || ids_empty),
        .out_data({response_error, response_data})
    );
    fifo #(.WIDTH(4), .DEPTH(READS)) ids (
        .clk(clk), .reset(reset), .push(accept), .push_data(read_id), .full(ids_full),
        .pop(response_valid && response_ready), .head(response_id), .empty(ids_empty)
    );

    wire unused = &{1'b0, rresp[0]};
endmodule
