// The accelerator's reads and writes of words as bursts on AXI4.
//
// Each direction has one ID and keeps its order. Up to READS words are read ahead of their responses,
// and up to BURSTS bursts written ahead of theirs. SLVERR and DECERR become errors.
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
    localparam COUNT = $clog2(BEATS) + 1;

    // Reads: bursts to AR; ids wait for the words of R.
    wire ids_full, ids_empty, read_burst_ready, read_out_valid, read_out_ready;
    wire [31:0] read_out_address;
    wire [COUNT-1:0] read_beats;
    wire read_accept = read_valid && read_ready;

    assign read_ready = read_burst_ready && !ids_full;

    burst #(.BEATS(BEATS)) read_burst (
        .clk(clk), .reset(reset), .in_valid(read_valid && !ids_full), .in_ready(read_burst_ready),
        .in_address(read_address), .out_valid(read_out_valid), .out_ready(read_out_ready),
        .out_address(read_out_address), .out_beats(read_beats)
    );
    stage #(.WIDTH(32 + COUNT)) ar_stage (
        .clk(clk), .reset(reset), .in_valid(read_out_valid), .in_ready(read_out_ready),
        .in_data({read_out_address, read_beats - 1'b1}), .out_valid(arvalid), .out_ready(arready),
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
        .clk(clk), .reset(reset), .push(read_accept), .push_data(read_id), .full(ids_full),
        .pop(response_valid && response_ready), .head(response_id), .empty(ids_empty)
    );

    // Writes: words wait for their burst to end; then it goes to AW, and its beats to W and B.
    wire words_full, words_empty, write_burst_ready, write_out_valid, aw_ready;
    wire sending_full, sending_empty, replies_full, replies_empty;
    wire [31:0] write_out_address;
    wire [COUNT-1:0] write_beats, sending_beats, reply_beats;
    wire [63:0] word;
    wire write_out_ready = aw_ready && !sending_full && !replies_full;
    wire write_out = write_out_valid && write_out_ready;

    assign write_ready = write_burst_ready && !words_full;

    burst #(.BEATS(BEATS)) write_burst (
        .clk(clk), .reset(reset), .in_valid(write_valid && !words_full),
        .in_ready(write_burst_ready), .in_address(write_address), .out_valid(write_out_valid),
        .out_ready(write_out_ready), .out_address(write_out_address), .out_beats(write_beats)
    );
    stage #(.WIDTH(32 + COUNT)) aw_stage (
        .clk(clk), .reset(reset), .in_valid(write_out), .in_ready(aw_ready),
        .in_data({write_out_address, write_beats - 1'b1}), .out_valid(awvalid),
        .out_ready(awready), .out_data({awaddr[34:3], awlen[COUNT-1:0]})
    );
    assign awaddr[2:0] = 0;
    assign awlen[7:COUNT] = 0;

    reg [COUNT-1:0] sent;
    wire w_ready;
    wire send = !sending_empty && w_ready;
    wire is_last = sent + 1'b1 == sending_beats;

    fifo #(.WIDTH(64), .DEPTH(WRITES)) words (
        .clk(clk), .reset(reset), .push(write_valid && write_ready), .push_data(write_data),
        .full(words_full), .pop(send), .head(word), .empty(words_empty)
    );
    fifo #(.WIDTH(COUNT), .DEPTH(BURSTS)) sending (
        .clk(clk), .reset(reset), .push(write_out), .push_data(write_beats), .full(sending_full),
        .pop(send && is_last), .head(sending_beats), .empty(sending_empty)
    );
    stage #(.WIDTH(65)) w_stage (
        .clk(clk), .reset(reset), .in_valid(send), .in_ready(w_ready), .in_data({is_last, word}),
        .out_valid(wvalid), .out_ready(wready), .out_data({wlast, wdata})
    );

    // A reply acknowledges every word of its burst; one that nobody waits for is dropped.
    reg [COUNT-1:0] acknowledged;
    wire reply_valid;
    wire acknowledge = acknowledge_valid && acknowledge_ready;
    wire reply_done = acknowledge && acknowledged + 1'b1 == reply_beats;

    assign acknowledge_valid = reply_valid && !replies_empty;

    stage #(.WIDTH(1)) b_stage (
        .clk(clk), .reset(reset), .in_valid(bvalid), .in_ready(bready), .in_data(bresp[1]),
        .out_valid(reply_valid), .out_ready(reply_done || replies_empty),
        .out_data(acknowledge_error)
    );
    fifo #(.WIDTH(COUNT), .DEPTH(BURSTS)) replies (
        .clk(clk), .reset(reset), .push(write_out), .push_data(write_beats), .full(replies_full),
        .pop(reply_done), .head(reply_beats), .empty(replies_empty)
    );

    always @(posedge clk) begin
        if (reset) begin
            sent <= 0;
            acknowledged <= 0;
        end else begin
            if (send) sent <= is_last ? 0 : sent + 1'b1;
            if (acknowledge) acknowledged <= reply_done ? 0 : acknowledged + 1'b1;
        end
    end

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

    wire unused = &{1'b0, words_empty, rid, rresp[0], rlast, bid, bresp[0]};
endmodule
