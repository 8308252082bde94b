// AXI4-Lite to a register file: writes one word a request, reads the cycle after the address.
//
// Every request is answered with OKAY: to a processor an error would be a bus fault.
module axi_lite #(
    parameter ADDRESS = 12
) (
    input  wire               clk,
    input  wire               reset,

    input  wire               awvalid,
    output wire               awready,
    input  wire [ADDRESS-1:0] awaddr,
    input  wire               wvalid,
    output wire               wready,
    input  wire [31:0]        wdata,
    input  wire [3:0]         wstrb,
    output reg                bvalid,
    input  wire               bready,
    input  wire               arvalid,
    output wire               arready,
    input  wire [ADDRESS-1:0] araddr,
    output reg                rvalid,
    input  wire               rready,
    output reg  [31:0]        rdata,

    output wire               write,
    output reg  [ADDRESS-1:0] write_address,
    output reg  [31:0]        write_data,
    output reg  [3:0]         write_bytes,
    output reg  [ADDRESS-1:0] read_address,
    input  wire [31:0]        read_data
);
    // Address and data come in any order, and wait for each other.
    reg has_address, has_data, reading;

    assign awready = !has_address;
    assign wready = !has_data;
    assign write = has_address && has_data && !bvalid;
    assign arready = !reading && !rvalid;

    always @(posedge clk) begin
        if (reset) begin
            has_address <= 0;
            has_data <= 0;
            bvalid <= 0;
            reading <= 0;
            rvalid <= 0;
        end else begin
            has_address <= !write && (has_address || awvalid);
            has_data <= !write && (has_data || wvalid);
            bvalid <= write || (bvalid && !bready);
            reading <= arvalid && arready;
            rvalid <= reading || (rvalid && !rready);
        end
        if (awready) write_address <= awaddr;
        if (wready) begin
            write_data <= wdata;
            write_bytes <= wstrb;
        end
        if (arready) read_address <= araddr;
        if (reading) rdata <= read_data;
    end
endmodule
