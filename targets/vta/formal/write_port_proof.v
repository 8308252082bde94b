// What is on the bus stays there until the memory takes it, and a reset doesn't change what it owes.
// Store is told of the acknowledgements that it asked for, of this program alone.
module write_port_proof #(
    parameter WRITES = 3
) (
    input wire        clk,
    input wire        stop,
    input wire        begins,
    input wire        request,
    input wire        notify,
    input wire [31:0] address,
    input wire [63:0] data,
    input wire        write_ready,
    input wire        acknowledges
);
    reg running = 0;
    wire grant, notified, none, late, wrong, write_valid, acknowledge_ready;
    wire [31:0] write_address;
    wire [63:0] write_data;

    reg [7:0] asked = 0;  // For a notice, the oldest in the lowest place.
    reg [3:0] granted = 0, taken = 0;
    wire acknowledge_valid = acknowledges && taken != 0;

    write_port #(.WRITES(WRITES), .TIMEOUT(100)) unit (
        .clk(clk), .running(running && !stop), .base(32'd0), .request(request),
        .address(address), .data(data), .notify(notify), .grant(grant), .notified(notified),
        .none(none), .late(late), .wrong(wrong), .write_valid(write_valid),
        .write_ready(write_ready), .write_address(write_address), .write_data(write_data),
        .acknowledge_valid(acknowledge_valid), .acknowledge_ready(acknowledge_ready),
        .acknowledge_error(1'b0)
    );

    wire issue = request && grant;
    wire [3:0] left = granted - {3'd0, acknowledge_valid};
    wire [7:0] rest = acknowledge_valid ? asked >> 1 : asked;
    always @(posedge clk) begin
        if (stop) running <= 0;
        else if (begins && none) running <= 1;
        granted <= left + {3'd0, issue};
        taken <= taken + {3'd0, write_valid && write_ready} - {3'd0, acknowledge_valid};
        asked <= (stop ? 8'd0 : rest) | {7'd0, issue && notify} << left;
    end

    reg was_held = 0;
    reg [31:0] address_before;
    reg [63:0] data_before;
    always @(posedge clk) begin
        was_held <= write_valid && !write_ready;
        address_before <= write_address;
        data_before <= write_data;
        if (was_held)
            assert(write_valid && write_address == address_before && write_data == data_before);
        assert(granted <= WRITES);
        assert(none == (granted == 0));
        assert(taken + {3'd0, write_valid} == granted);
        assert(!issue || running);
        assert(!wrong && acknowledge_ready);
        assert(notified == (acknowledge_valid && asked[0] && !stop));
    end
endmodule
