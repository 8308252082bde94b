// The AXI master's half of the protocol, for every behaviour of the accelerator and of a memory that
// keeps its own half: `assume` says what these do, `assert` what the master does.
//
// Of all requests one is watched, `chosen`, which may be any: what holds for it holds for each.
module axi_master_proof #(
    parameter BEATS = 4,
    parameter READS = 8,
    parameter WRITES = 8,
    parameter BURSTS = 2
) (
    input wire        clk,
    input wire        reset,
    input wire        read_valid,
    input wire [31:0] read_address,
    input wire [3:0]  read_id,
    input wire        response_ready,
    input wire        write_valid,
    input wire [31:0] write_address,
    input wire [63:0] write_data,
    input wire        acknowledge_ready,
    input wire        arready,
    input wire        rvalid,
    input wire [63:0] rdata,
    input wire [1:0]  rresp,
    input wire        awready,
    input wire        wready,
    input wire        bvalid,
    input wire [1:0]  bresp
);
    wire read_ready, response_valid, response_error, write_ready, acknowledge_valid;
    wire acknowledge_error, arvalid, rready, awvalid, wvalid, wlast, bready;
    wire [63:0] response_data, wdata;
    wire [3:0] response_id;
    wire [34:0] araddr, awaddr;
    wire [7:0] arlen, awlen, wstrb;
    wire [2:0] arsize, awsize;
    wire [1:0] arburst, awburst;

    axi_master #(.BEATS(BEATS), .READS(READS), .WRITES(WRITES), .BURSTS(BURSTS)) master (
        .clk(clk), .reset(reset), .read_valid(read_valid), .read_ready(read_ready),
        .read_address(read_address), .read_id(read_id), .response_valid(response_valid),
        .response_ready(response_ready), .response_data(response_data),
        .response_id(response_id), .response_error(response_error), .write_valid(write_valid),
        .write_ready(write_ready), .write_address(write_address), .write_data(write_data),
        .acknowledge_valid(acknowledge_valid), .acknowledge_ready(acknowledge_ready),
        .acknowledge_error(acknowledge_error), .arid(), .arvalid(arvalid), .arready(arready),
        .araddr(araddr), .arlen(arlen), .arsize(arsize), .arburst(arburst), .arcache(),
        .arprot(), .rid(1'b0), .rvalid(rvalid), .rready(rready), .rdata(rdata), .rresp(rresp),
        .rlast(1'b0), .awid(), .awvalid(awvalid), .awready(awready), .awaddr(awaddr),
        .awlen(awlen), .awsize(awsize), .awburst(awburst), .awcache(), .awprot(),
        .wvalid(wvalid), .wready(wready), .wdata(wdata), .wstrb(wstrb), .wlast(wlast),
        .bid(1'b0), .bvalid(bvalid), .bready(bready), .bresp(bresp)
    );

    // Reset comes first, and not again.
    reg started = 0;
    always @(posedge clk) started <= 1;
    always @(*) assume (reset == !started);

    // How many words or bursts each channel has passed.
    localparam COUNT = 5;
    reg [COUNT-1:0] requested = 0, asked = 0, answered = 0, responded = 0;
    reg [COUNT-1:0] written = 0, addressed = 0, sent = 0, acknowledged = 0;
    reg [COUNT-1:0] address_bursts = 0, data_bursts = 0, replies = 0, beats = 0;

    (* anyconst *) wire [COUNT-1:0] chosen;
    reg [31:0] request_address, write_to;
    reg [3:0] request_id;
    reg [64:0] answer;
    reg [63:0] write_word;
    reg [7:0] burst_beats;
    reg burst_error;

    wire [COUNT-1:0] ar_offset = chosen - asked, aw_offset = chosen - addressed;

    // Words of bursts that have their reply: no other may be acknowledged.
    reg [COUNT-1:0] lengths [0:(1<<COUNT)-1];
    reg [COUNT-1:0] replied_words = 0;

    always @(posedge clk) if (started) begin
        if (read_valid && read_ready) begin
            requested <= requested + 1;
            if (requested == chosen) {request_address, request_id} <= {read_address, read_id};
        end
        if (arvalid && arready) asked <= asked + arlen + 1;
        if (rvalid && rready) begin
            answered <= answered + 1;
            if (answered == chosen) answer <= {rresp[1], rdata};
        end
        if (response_valid && response_ready) responded <= responded + 1;

        if (write_valid && write_ready) begin
            written <= written + 1;
            if (written == chosen) {write_to, write_word} <= {write_address, write_data};
        end
        if (awvalid && awready) begin
            addressed <= addressed + awlen + 1;
            address_bursts <= address_bursts + 1;
            lengths[address_bursts] <= awlen + 1;
            if (address_bursts == chosen) burst_beats <= awlen + 1;
        end
        if (wvalid && wready) begin
            sent <= sent + 1;
            beats <= wlast ? 0 : beats + 1;
            if (wlast) data_bursts <= data_bursts + 1;
        end
        if (bvalid && bready) begin
            replies <= replies + 1;
            replied_words <= replied_words + lengths[replies];
            if (replies == chosen) burst_error <= bresp[1];
        end
        if (acknowledge_valid && acknowledge_ready) acknowledged <= acknowledged + 1;
    end

    // The memory: words after their request, replies after address and last word; valid holds.
    always @(posedge clk) begin
        assume (!rvalid || answered != asked);
        assume (!bvalid || (replies != address_bursts && replies != data_bursts));
        if (!started) assume (!rvalid && !bvalid);
        else if ($past(started)) begin
            if ($past(rvalid && !rready))
                assume (rvalid && $stable(rdata) && $stable(rresp));
            if ($past(bvalid && !bready)) assume (bvalid && $stable(bresp));
        end
    end

    always @(posedge clk) if (started && $past(started)) begin
        // Valid holds with its payload until ready.
        if ($past(arvalid && !arready))
            assert (arvalid && $stable(araddr) && $stable(arlen));
        if ($past(awvalid && !awready))
            assert (awvalid && $stable(awaddr) && $stable(awlen));
        if ($past(wvalid && !wready))
            assert (wvalid && $stable(wdata) && $stable(wlast));
        if ($past(response_valid && !response_ready))
            assert (response_valid && $stable(response_data) && $stable(response_id)
                && $stable(response_error));
        if ($past(acknowledge_valid && !acknowledge_ready))
            assert (acknowledge_valid && $stable(acknowledge_error));
    end else if (started) assert (!arvalid && !awvalid && !wvalid);

    always @(posedge clk) if (started) begin
        // Bursts: whole words, up to BEATS, inside of 4 KB.
        if (arvalid) begin
            assert (araddr[2:0] == 0 && arsize == 3 && arburst == 1 && arlen < BEATS);
            assert (araddr[11:3] + {1'b0, arlen} < 512);
        end
        if (awvalid) begin
            assert (awaddr[2:0] == 0 && awsize == 3 && awburst == 1 && awlen < BEATS);
            assert (awaddr[11:3] + {1'b0, awlen} < 512);
        end
        // Nothing is asked that the accelerator didn't, and nothing answered before it is asked.
        if (arvalid) assert (requested - asked > arlen && requested - asked <= READS);
        if (response_valid) assert (responded != requested && responded != answered);
        if (awvalid) assert (written - addressed > awlen);
        if (wvalid) assert (sent != written);
        if (acknowledge_valid) assert (acknowledged != replied_words);
        // Addresses, ids and words are those of the request, in its place.
        if (arvalid && ar_offset <= arlen && requested > chosen)
            assert (araddr[34:3] + ar_offset == request_address);
        if (response_valid && responded == chosen) begin
            assert (response_id == request_id);
            assert ({response_error, response_data} == answer);
        end
        if (awvalid && aw_offset <= awlen && written > chosen)
            assert (awaddr[34:3] + aw_offset == write_to);
        if (wvalid && sent == chosen) assert (wdata == write_word && wstrb == 8'hff);
        // The last word of a burst, and no other, has WLAST. Data may come before the address.
        if (wvalid && data_bursts == chosen && address_bursts > chosen)
            assert (wlast == (beats + 1 == burst_beats));
        if (wvalid && awvalid && awready && address_bursts == data_bursts)
            assert (wlast == (beats == awlen));
        // A burst's words have the error of its reply.
        if (acknowledge_valid && chosen == 0 && acknowledged < lengths[0])
            assert (acknowledge_error == burst_error);
    end

    // Nothing is kept back: all that was asked has left once nothing new came for a while.
    reg [3:0] quiet = 0;
    always @(posedge clk) begin
        quiet <= read_valid || write_valid || !arready || !awready || !wready || !bvalid
            ? 0 : quiet + (quiet != 15);
        if (started && quiet == 15) assert (asked == requested);
    end

    always @(posedge clk) if (started) begin
        cover (arvalid && arready && arlen == BEATS - 1);
        cover (responded == 4 && acknowledged == 4);
        cover (acknowledge_valid && acknowledge_error && acknowledged == 2);
        cover (response_valid && response_error);
        cover (requested - responded == READS);
    end
endmodule
