// Writes of words as bursts on AXI4: words wait for the end of their burst, which then goes to AW,
// and its length to W and B.
module axi_write #(
    parameter BEATS = 16,
    parameter WRITES = 32,
    parameter BURSTS = 8
) (
    input  wire        clk,
    input  wire        reset,

    input  wire        write_valid,
    output wire        write_ready,
    input  wire [31:0] write_address,
    input  wire [63:0] write_data,
    output wire        acknowledge_valid,
    input  wire        acknowledge_ready,
    output wire        acknowledge_error,

    output wire        awvalid,
    input  wire        awready,
    output wire [34:0] awaddr,
    output wire [7:0]  awlen,
    output wire        wvalid,
    input  wire        wready,
    output wire [63:0] wdata,
    output wire        wlast,
    input  wire        bvalid,
    output wire        bready,
    input  wire [1:0]  bresp
);
    localparam COUNT = $clog2(BEATS) + 1;

    wire words_full, words_empty, burst_ready, burst_valid, aw_ready;
    wire sending_full, sending_empty, replies_full, replies_empty;
    wire [31:0] burst_address;
    wire [COUNT-1:0] beats, sending_beats, reply_beats;
    wire [63:0] word;
    wire burst_go = aw_ready && !sending_full && !replies_full;
    wire begins = burst_valid && burst_go;

    assign write_ready = burst_ready && !words_full;

    burst #(.BEATS(BEATS)) bursts (
        .clk(clk), .reset(reset), .in_valid(write_valid && !words_full),
        .in_ready(burst_ready), .in_address(write_address), .out_valid(burst_valid),
        .out_ready(burst_go), .out_address(burst_address), .out_beats(beats)
    );
    stage #(.WIDTH(32 + COUNT)) aw_stage (
        .clk(clk), .reset(reset), .in_valid(begins), .in_ready(aw_ready),
        .in_data({burst_address, beats - 1'b1}), .out_valid(awvalid),
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
        .clk(clk), .reset(reset), .push(begins), .push_data(beats), .full(sending_full),
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
        .clk(clk), .reset(reset), .push(begins), .push_data(beats), .full(replies_full),
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

    wire unused = &{1'b0, words_empty, bresp[0]};
endmodule
