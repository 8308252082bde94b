// The accelerator's reads and writes of words as bursts on AXI4.
//
// Each direction has one ID and keeps its order. Up to READS words are read ahead of their
// responses, and up to BURSTS bursts written ahead of theirs. SLVERR and DECERR become errors.
module axi_master #(
    parameter BEATS = 16,
    parameter READS = 64,
    parameter WRITES = 32,
    parameter BURSTS = 8
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
    input  wire        write_valid,
    output wire        write_ready,
    input  wire [31:0] write_address,
    input  wire [63:0] write_data,
    output wire        acknowledge_valid,
    input  wire        acknowledge_ready,
    output wire        acknowledge_error,

    output wire        arid,
    output wire        arvalid,
    input  wire        arready,
    output wire [34:0] araddr,
    output wire [7:0]  arlen,
    output wire [2:0]  arsize,
    output wire [1:0]  arburst,
    output wire [3:0]  arcache,
    output wire [2:0]  arprot,
    input  wire        rid,
    input  wire        rvalid,
    output wire        rready,
    input  wire [63:0] rdata,
    input  wire [1:0]  rresp,
    input  wire        rlast,
    output wire        awid,
    output wire        awvalid,
    input  wire        awready,
    output wire [34:0] awaddr,
    output wire [7:0]  awlen,
    output wire [2:0]  awsize,
    output wire [1:0]  awburst,
    output wire [3:0]  awcache,
    output wire [2:0]  awprot,
    output wire        wvalid,
    input  wire        wready,
    output wire [63:0] wdata,
    output wire [7:0]  wstrb,
    output wire        wlast,
    input  wire        bid,
    input  wire        bvalid,
    output wire        bready,
    input  wire [1:0]  bresp
);
    axi_read #(.BEATS(BEATS), .READS(READS)) reads (
        .clk(clk), .reset(reset), .read_valid(read_valid), .read_ready(read_ready),
        .read_address(read_address), .read_id(read_id), .response_valid(response_valid),
        .response_ready(response_ready), .response_data(response_data),
        .response_id(response_id), .response_error(response_error), .arvalid(arvalid),
        .arready(arready), .araddr(araddr), .arlen(arlen), .rvalid(rvalid), .rready(rready),
        .rdata(rdata), .rresp(rresp)
    );
    axi_write #(.BEATS(BEATS), .WRITES(WRITES), .BURSTS(BURSTS)) writes (
        .clk(clk), .reset(reset), .write_valid(write_valid), .write_ready(write_ready),
        .write_address(write_address), .write_data(write_data),
        .acknowledge_valid(acknowledge_valid), .acknowledge_ready(acknowledge_ready),
        .acknowledge_error(acknowledge_error), .awvalid(awvalid), .awready(awready),
        .awaddr(awaddr), .awlen(awlen), .wvalid(wvalid), .wready(wready), .wdata(wdata),
        .wlast(wlast), .bvalid(bvalid), .bready(bready), .bresp(bresp)
    );

    // Words of eight bytes, one after another, in memory that may be buffered, not cached.
    assign arid = 0;
    assign arsize = 3'd3;
    assign arburst = 2'b01;
    assign arcache = 4'b0011;
    assign arprot = 0;
    assign awid = 0;
    assign awsize = 3'd3;
    assign awburst = 2'b01;
    assign awcache = 4'b0011;
    assign awprot = 0;
    assign wstrb = 8'hff;

    wire unused = &{1'b0, rid, rlast, bid};
endmodule
