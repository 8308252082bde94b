// The accelerator on AXI: registers on AXI4-Lite, memory on 64-bit AXI4, and an interrupt.
module vta_axi #(
    parameter DK = 64,
    parameter DM = 8,
    parameter DN = 8,
    parameter ACT_ROWS = 1024,
    parameter WEIGHT_ROWS = 2048,
    parameter PARAM_ROWS = 1024,
    parameter TAP_ROWS = 256,
    parameter PASS_ROWS = 64,
    parameter RESIDUAL_ROWS = 4096,
    parameter OUT_ROWS = 4096,
    parameter FLOAT_UNITS = 0,
    parameter INSTRUCTION_QUEUE = 8,
    parameter TOKEN_QUEUE = 8,
    parameter READS = 128,
    parameter WRITES = 128,
    parameter STAGES = 2
) (
    input  wire        aclk,
    input  wire        aresetn,
    output wire        interrupt,

    input  wire        s_axi_awvalid,
    output wire        s_axi_awready,
    input  wire [11:0] s_axi_awaddr,
    input  wire [2:0]  s_axi_awprot,
    input  wire        s_axi_wvalid,
    output wire        s_axi_wready,
    input  wire [31:0] s_axi_wdata,
    input  wire [3:0]  s_axi_wstrb,
    output wire        s_axi_bvalid,
    input  wire        s_axi_bready,
    output wire [1:0]  s_axi_bresp,
    input  wire        s_axi_arvalid,
    output wire        s_axi_arready,
    input  wire [11:0] s_axi_araddr,
    input  wire [2:0]  s_axi_arprot,
    output wire        s_axi_rvalid,
    input  wire        s_axi_rready,
    output wire [31:0] s_axi_rdata,
    output wire [1:0]  s_axi_rresp,

    output wire        m_axi_arid,
    output wire        m_axi_arvalid,
    input  wire        m_axi_arready,
    output wire [34:0] m_axi_araddr,
    output wire [7:0]  m_axi_arlen,
    output wire [2:0]  m_axi_arsize,
    output wire [1:0]  m_axi_arburst,
    output wire [3:0]  m_axi_arcache,
    output wire [2:0]  m_axi_arprot,
    input  wire        m_axi_rid,
    input  wire        m_axi_rvalid,
    output wire        m_axi_rready,
    input  wire [63:0] m_axi_rdata,
    input  wire [1:0]  m_axi_rresp,
    input  wire        m_axi_rlast,
    output wire        m_axi_awid,
    output wire        m_axi_awvalid,
    input  wire        m_axi_awready,
    output wire [34:0] m_axi_awaddr,
    output wire [7:0]  m_axi_awlen,
    output wire [2:0]  m_axi_awsize,
    output wire [1:0]  m_axi_awburst,
    output wire [3:0]  m_axi_awcache,
    output wire [2:0]  m_axi_awprot,
    output wire        m_axi_wvalid,
    input  wire        m_axi_wready,
    output wire [63:0] m_axi_wdata,
    output wire [7:0]  m_axi_wstrb,
    output wire        m_axi_wlast,
    input  wire        m_axi_bid,
    input  wire        m_axi_bvalid,
    output wire        m_axi_bready,
    input  wire [1:0]  m_axi_bresp
);
    // A reset of the bus, of one clock edge at least.
    reg reset;
    always @(posedge aclk) reset <= !aresetn;

    wire write;
    wire [11:0] write_address, registers_address;
    wire [31:0] write_data_32, registers_data;
    wire [3:0] write_bytes;

    axi_lite slave (
        .clk(aclk), .reset(reset), .awvalid(s_axi_awvalid), .awready(s_axi_awready),
        .awaddr(s_axi_awaddr), .wvalid(s_axi_wvalid), .wready(s_axi_wready), .wdata(s_axi_wdata),
        .wstrb(s_axi_wstrb), .bvalid(s_axi_bvalid), .bready(s_axi_bready),
        .arvalid(s_axi_arvalid), .arready(s_axi_arready), .araddr(s_axi_araddr),
        .rvalid(s_axi_rvalid), .rready(s_axi_rready), .rdata(s_axi_rdata), .write(write),
        .write_address(write_address), .write_data(write_data_32), .write_bytes(write_bytes),
        .read_address(registers_address), .read_data(registers_data)
    );
    assign s_axi_bresp = 0;
    assign s_axi_rresp = 0;

    wire start, stop, busy, done;
    wire [3:0] error;
    wire [31:0] base, instructions, memory_words;
    wire [31:0] cycles, load, compute, store, steps, reads, writes;

    registers #(
        .DK(DK), .DM(DM), .DN(DN), .STAGES(STAGES), .ACT_ROWS(ACT_ROWS),
        .WEIGHT_ROWS(WEIGHT_ROWS), .PARAM_ROWS(PARAM_ROWS),
        .TAP_ROWS(TAP_ROWS), .PASS_ROWS(PASS_ROWS), .RESIDUAL_ROWS(RESIDUAL_ROWS),
        .OUT_ROWS(OUT_ROWS), .INSTRUCTION_QUEUE(INSTRUCTION_QUEUE), .TOKEN_QUEUE(TOKEN_QUEUE),
        .READS(READS), .WRITES(WRITES), .FLOAT_UNITS(FLOAT_UNITS)
    ) registers (
        .clk(aclk), .reset(reset), .write(write), .write_address(write_address),
        .write_data(write_data_32), .write_bytes(write_bytes),
        .read_address(registers_address), .read_data(registers_data), .start(start), .stop(stop),
        .base(base), .instructions(instructions), .memory_words(memory_words), .busy(busy),
        .done(done), .error(error), .interrupt(interrupt), .cycles(cycles), .load_cycles(load),
        .compute_cycles(compute), .store_cycles(store), .array_steps(steps), .read_words(reads),
        .write_words(writes)
    );

    wire read_valid, read_ready, response_valid, response_ready, response_error;
    wire write_valid, write_ready, acknowledge_valid, acknowledge_ready, acknowledge_error;
    wire [31:0] read_word, write_word;
    wire [63:0] response_data, write_data;
    wire [3:0] read_id, response_id;
    wire [4:0] active;

    accelerator #(
        .DK(DK), .DM(DM), .DN(DN), .STAGES(STAGES), .ACT_ROWS(ACT_ROWS),
        .WEIGHT_ROWS(WEIGHT_ROWS), .PARAM_ROWS(PARAM_ROWS),
        .TAP_ROWS(TAP_ROWS), .PASS_ROWS(PASS_ROWS), .RESIDUAL_ROWS(RESIDUAL_ROWS),
        .OUT_ROWS(OUT_ROWS), .INSTRUCTION_QUEUE(INSTRUCTION_QUEUE), .TOKEN_QUEUE(TOKEN_QUEUE),
        .READS(READS), .WRITES(WRITES), .FLOAT_UNITS(FLOAT_UNITS)
    ) accelerator (
        .clk(aclk), .reset(stop), .start(start), .base(base), .instructions(instructions),
        .memory_words(memory_words), .busy(busy), .done(done), .error(error),
        .read_valid(read_valid), .read_ready(read_ready), .read_address(read_word),
        .read_id(read_id), .response_valid(response_valid), .response_ready(response_ready),
        .response_data(response_data), .response_id(response_id),
        .response_error(response_error), .write_valid(write_valid), .write_ready(write_ready),
        .write_address(write_word), .write_data(write_data),
        .acknowledge_valid(acknowledge_valid), .acknowledge_ready(acknowledge_ready),
        .acknowledge_error(acknowledge_error), .cycles(cycles), .load_cycles(load),
        .compute_cycles(compute), .store_cycles(store), .array_steps(steps), .read_words(reads),
        .write_words(writes), .load_active(active[0]), .compute_active(active[1]),
        .store_active(active[2]), .array_step(active[3]), .ends_layer(active[4])
    );

    axi_master #(.READS(READS)) master (
        .clk(aclk), .reset(reset), .read_valid(read_valid), .read_ready(read_ready),
        .read_address(read_word), .read_id(read_id), .response_valid(response_valid),
        .response_ready(response_ready), .response_data(response_data),
        .response_id(response_id), .response_error(response_error), .write_valid(write_valid),
        .write_ready(write_ready), .write_address(write_word), .write_data(write_data),
        .acknowledge_valid(acknowledge_valid), .acknowledge_ready(acknowledge_ready),
        .acknowledge_error(acknowledge_error), .arid(m_axi_arid), .arvalid(m_axi_arvalid),
        .arready(m_axi_arready), .araddr(m_axi_araddr), .arlen(m_axi_arlen),
        .arsize(m_axi_arsize), .arburst(m_axi_arburst), .arcache(m_axi_arcache),
        .arprot(m_axi_arprot), .rid(m_axi_rid), .rvalid(m_axi_rvalid), .rready(m_axi_rready),
        .rdata(m_axi_rdata), .rresp(m_axi_rresp), .rlast(m_axi_rlast), .awid(m_axi_awid),
        .awvalid(m_axi_awvalid), .awready(m_axi_awready), .awaddr(m_axi_awaddr),
        .awlen(m_axi_awlen), .awsize(m_axi_awsize), .awburst(m_axi_awburst),
        .awcache(m_axi_awcache), .awprot(m_axi_awprot), .wvalid(m_axi_wvalid),
        .wready(m_axi_wready), .wdata(m_axi_wdata), .wstrb(m_axi_wstrb), .wlast(m_axi_wlast),
        .bid(m_axi_bid), .bvalid(m_axi_bvalid), .bready(m_axi_bready), .bresp(m_axi_bresp)
    );

    wire unused = &{1'b0, s_axi_awprot, s_axi_arprot, active};
endmodule
