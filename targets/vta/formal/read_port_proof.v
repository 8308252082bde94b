// Before a memory that answers in order, whenever it likes, and that no reset reaches: an answer
// goes to the reader that asked for it since the program began, and to no other one. What is on the
// bus stays there until the memory takes it.
module read_port_proof #(
    parameter READS = 3
) (
    input wire        clk,
    input wire        stop,
    input wire        begins,
    input wire        fetch_request,
    input wire        load_request,
    input wire [31:0] fetch_address,
    input wire [31:0] load_address,
    input wire        read_ready,
    input wire        answers
);
    reg running = 0;
    wire fetch_grant, fetch_response, load_grant, load_response, none, late, wrong, read_valid;
    wire response_ready;
    wire [31:0] read_address;
    wire [3:0] read_id;

    // Reads from their grant to their answer, the oldest in the lowest place: whose, and whether
    // they are of this program. The memory has taken `taken` of them.
    reg [7:0] of_fetch = 0, of_now = 0;
    reg [3:0] granted = 0, taken = 0, due_id = 0;
    wire response_valid = answers && taken != 0;
    wire grant = (fetch_request && fetch_grant) || (load_request && load_grant);

    read_port #(.READS(READS), .TIMEOUT(100)) unit (
        .clk(clk), .running(running && !stop), .base(32'd0), .fetch_request(fetch_request),
        .fetch_address(fetch_address), .fetch_grant(fetch_grant),
        .fetch_response(fetch_response), .load_request(load_request),
        .load_address(load_address), .load_grant(load_grant), .load_response(load_response),
        .none(none), .late(late), .wrong(wrong), .read_valid(read_valid),
        .read_ready(read_ready), .read_address(read_address), .read_id(read_id),
        .response_valid(response_valid), .response_ready(response_ready),
        .response_id(due_id), .response_error(1'b0)
    );

    wire [3:0] left = granted - {3'd0, response_valid};
    wire [7:0] rest_fetch = response_valid ? of_fetch >> 1 : of_fetch;
    wire [7:0] rest_now = response_valid ? of_now >> 1 : of_now;
    always @(posedge clk) begin
        if (stop) running <= 0;
        else if (begins && none) running <= 1;
        granted <= left + {3'd0, grant};
        taken <= taken + {3'd0, read_valid && read_ready} - {3'd0, response_valid};
        due_id <= due_id + {3'd0, response_valid};
        of_fetch <= rest_fetch | {7'd0, grant && fetch_request} << left;
        of_now <= (stop ? 8'd0 : rest_now) | {7'd0, grant} << left;
    end

    reg was_held = 0;
    reg [31:0] address_before;
    reg [3:0] id_before;
    always @(posedge clk) begin
        was_held <= read_valid && !read_ready;
        address_before <= read_address;
        id_before <= read_id;
        if (was_held) assert(read_valid && read_address == address_before && read_id == id_before);
        assert(granted <= READS);
        assert(none == (granted == 0));
        assert(taken + {3'd0, read_valid} == granted);
        assert(!grant || running);
        assert(!wrong && response_ready);
        if (fetch_response || load_response) assert(response_valid && of_now[0]);
        if (fetch_response) assert(of_fetch[0] && !load_response);
        if (load_response) assert(!of_fetch[0]);
        if (response_valid && of_now[0] && !stop) assert(fetch_response || load_response);
    end
endmodule
