// The reading half of the AXI master keeps the protocol, whatever the accelerator does, and
// a memory that keeps its own half. `assume` says what these do, `assert` what the master does.
//
// Of all words one is watched, `chosen`, which may be any: what holds for it holds for each.
module axi_read_proof #(
    parameter BEATS = 2,
    parameter READS = 4
) (
    input wire        clk,
    input wire        reset,
    input wire        read_valid,
    input wire [31:0] read_address,
    input wire [3:0]  read_id,
    input wire        response_ready,
    input wire        arready,
    input wire        rvalid,
    input wire [63:0] rdata,
    input wire [1:0]  rresp
);
    wire read_ready, response_valid, response_error, arvalid, rready;
    wire [63:0] response_data;
    wire [3:0] response_id;
    wire [34:0] araddr;
    wire [7:0] arlen;

    axi_read #(.BEATS(BEATS), .READS(READS)) master (
        .clk(clk), .reset(reset), .read_valid(read_valid), .read_ready(read_ready),
        .read_address(read_address), .read_id(read_id), .response_valid(response_valid),
        .response_ready(response_ready), .response_data(response_data),
        .response_id(response_id), .response_error(response_error), .arvalid(arvalid),
        .arready(arready), .araddr(araddr), .arlen(arlen), .rvalid(rvalid), .rready(rready),
        .rdata(rdata), .rresp(rresp)
    );

    // Reset comes first, and not again.
    reg started = 0, running = 0;
    always @(posedge clk) {running, started} <= {started, 1'b1};
    always @(*) assume (reset == !started);

    // Words that have passed each channel.
    reg [4:0] requested = 0, asked = 0, answered = 0, responded = 0;
    (* anyconst *) wire [4:0] chosen;
    reg [31:0] request_address;
    reg [3:0] request_id;
    reg [64:0] answer;
    wire [4:0] offset = chosen - asked;

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
    end

    // The memory answers what was asked, and holds its answer.
    always @(*) assume (!rvalid || (started && answered != asked));
    always @(posedge clk)
        if (running && $past(rvalid && !rready))
            assume (rvalid && $stable(rdata) && $stable(rresp));

    always @(posedge clk) if (running) begin
        // Valid holds with its payload until ready.
        if ($past(arvalid && !arready)) assert (arvalid && $stable(araddr) && $stable(arlen));
        if ($past(response_valid && !response_ready))
            assert (response_valid && $stable({response_error, response_data, response_id}));
        // Bursts are whole words, BEATS at most, inside of 4 KB.
        if (arvalid) assert (araddr[2:0] == 0 && arlen < BEATS);
        if (arvalid) assert (araddr[11:3] + {1'b0, arlen} < 512);
        // Nothing is asked that the accelerator didn't, nor answered before its answer came.
        if (arvalid) assert (requested - asked > arlen && requested - asked <= READS);
        if (response_valid) assert (responded != requested && responded != answered);
        // Every word is that of its request, in its place.
        if (arvalid && offset <= arlen && requested > chosen)
            assert (araddr[34:3] + offset == request_address);
        if (response_valid && responded == chosen && requested > chosen
                && answered > chosen)
            assert (response_id == request_id && {response_error, response_data} == answer);
    end else if (started) assert (!arvalid && !response_valid);

    // Nothing is kept back: once nothing new comes for a while, all has been asked for.
    reg [2:0] quiet = 0;
    always @(posedge clk) begin
        quiet <= read_valid || !arready ? 0 : quiet + (quiet != 7);
        if (running && quiet == 7) assert (asked == requested);
    end

    always @(posedge clk) if (running) begin
        cover (arvalid && arready && arlen == BEATS - 1);
        cover (arvalid && arready && arlen == 1 && araddr[11:3] == 510 && requested == 3);
        cover (responded == 4 && response_valid && response_error);
        cover (requested - responded == READS);
        cover (quiet == 7 && requested == 3);
    end
endmodule
