// The writing half of the AXI master, like axi_read_proof.v.
module axi_write_proof #(
    parameter BEATS = 4,
    parameter WRITES = 4,
    parameter BURSTS = 4
) (
    input wire        clk,
    input wire        reset,
    input wire        write_valid,
    input wire [31:0] write_address,
    input wire [63:0] write_data,
    input wire        acknowledge_ready,
    input wire        awready,
    input wire        wready,
    input wire        bvalid,
    input wire [1:0]  bresp
);
    wire write_ready, acknowledge_valid, acknowledge_error, awvalid, wvalid, wlast, bready;
    wire [63:0] wdata;
    wire [34:0] awaddr;
    wire [7:0] awlen;

    axi_write #(.BEATS(BEATS), .WRITES(WRITES), .BURSTS(BURSTS)) master (
        .clk(clk), .reset(reset), .write_valid(write_valid), .write_ready(write_ready),
        .write_address(write_address), .write_data(write_data),
        .acknowledge_valid(acknowledge_valid), .acknowledge_ready(acknowledge_ready),
        .acknowledge_error(acknowledge_error), .awvalid(awvalid), .awready(awready),
        .awaddr(awaddr), .awlen(awlen), .wvalid(wvalid), .wready(wready), .wdata(wdata),
        .wlast(wlast), .bvalid(bvalid), .bready(bready), .bresp(bresp)
    );

    // Reset comes first, and not again.
    reg started = 0, running = 0;
    always @(posedge clk) {running, started} <= {started, 1'b1};
    always @(*) assume (reset == !started);

    // Words and bursts that have passed each channel; the word and the burst watched may be
    // any; `end_of_burst` is the number of words up to the burst's last.
    reg [4:0] written = 0, addressed = 0, sent = 0, acknowledged = 0;
    reg [4:0] addresses = 0, datas = 0, replies = 0;
    (* anyconst *) wire [4:0] chosen, burst;
    reg [31:0] write_to;
    reg [63:0] write_word;
    reg [4:0] first_of_burst, end_of_burst;
    reg burst_error;
    wire [4:0] offset = chosen - addressed;
    wire has_address = addresses > burst;

    always @(posedge clk) if (started) begin
        if (write_valid && write_ready) begin
            written <= written + 1;
            if (written == chosen) {write_to, write_word} <= {write_address, write_data};
        end
        if (awvalid && awready) begin
            addressed <= addressed + awlen + 1;
            addresses <= addresses + 1;
            if (addresses == burst)
                {first_of_burst, end_of_burst} <= {addressed, addressed + awlen[4:0] + 5'd1};
        end
        if (wvalid && wready) begin
            sent <= sent + 1;
            if (wlast) datas <= datas + 1;
        end
        if (bvalid && bready) begin
            replies <= replies + 1;
            if (replies == burst) burst_error <= bresp[1];
        end
        if (acknowledge_valid && acknowledge_ready) acknowledged <= acknowledged + 1;
    end

    // The memory replies to bursts whose address and last word it has, and holds its reply.
    always @(*) assume (!bvalid || (started && replies < addresses && replies < datas));
    always @(posedge clk)
        if (running && $past(bvalid && !bready)) assume (bvalid && $stable(bresp));

    always @(posedge clk) if (running) begin
        // Valid holds with its payload until ready.
        if ($past(awvalid && !awready)) assert (awvalid && $stable(awaddr) && $stable(awlen));
        if ($past(wvalid && !wready)) assert (wvalid && $stable(wdata) && $stable(wlast));
        if ($past(acknowledge_valid && !acknowledge_ready))
            assert (acknowledge_valid && $stable(acknowledge_error));
        // Bursts are whole words, BEATS at most, inside of 4 KB.
        if (awvalid) assert (awaddr[2:0] == 0 && awlen < BEATS);
        if (awvalid) assert (awaddr[11:3] + {1'b0, awlen} < 512);
        // Nothing is written that the accelerator didn't; each word in its place.
        if (awvalid) assert (written - addressed > awlen);
        if (wvalid) assert (sent != written);
        if (awvalid && offset <= awlen && written > chosen)
            assert (awaddr[34:3] + offset == write_to);
        if (wvalid && sent == chosen && written > chosen)
            assert (wdata == write_word);
        // The last word of a burst, and no other, has WLAST; data may come before the address.
        if (wvalid && has_address && sent >= first_of_burst && sent < end_of_burst)
            assert (wlast == (sent + 5'd1 == end_of_burst));
        if (has_address && datas > burst) assert (sent >= end_of_burst);
        if (awvalid && datas > addresses) assert (sent > addressed + awlen);
        // Acknowledgements come behind the reply of their burst, with its error.
        if (acknowledge_valid && has_address && acknowledged >= first_of_burst
                && acknowledged < end_of_burst)
            assert (replies > burst && acknowledge_error == burst_error);
        if (acknowledge_valid) assert (acknowledged < addressed && acknowledged < sent);
    end else if (started) assert (!awvalid && !wvalid && !acknowledge_valid);

    // Nothing is kept back: once nothing new comes for a while, all has been sent.
    reg [3:0] quiet = 0;
    always @(posedge clk) begin
        quiet <= write_valid || !awready || !wready ? 0 : quiet + (quiet != 9);
        if (running && quiet == 9 && addresses == replies + (bvalid && bready))
            assert (sent == written && addressed == written);
    end

    always @(posedge clk) if (running) begin
        cover (awvalid && awready && awlen == BEATS - 1);
        cover (acknowledge_valid && acknowledge_error && acknowledged == 3);
        cover (wvalid && wlast && datas > addresses);
        cover (quiet == 9 && written == 2);
    end
endmodule
