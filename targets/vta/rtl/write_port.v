// Writes of store; it is `notified` when one with `notify` is acknowledged. What is on the bus, and
// the count of acknowledgements to come, survive a reset.
module write_port #(
    parameter WRITES = 64,
    parameter TIMEOUT = 4096
) (
    input  wire        clk,
    input  wire        running,
    input  wire [31:0] base,
    input  wire        request,
    input  wire [31:0] address,
    input  wire [63:0] data,
    input  wire        notify,
    output wire        grant,
    output wire        notified,
    output wire        none,
    output wire        late,
    output wire        wrong,
    output reg         write_valid,
    input  wire        write_ready,
    output reg  [31:0] write_address,
    output reg  [63:0] write_data,
    input  wire        acknowledge_valid,
    output wire        acknowledge_ready,
    input  wire        acknowledge_error
);
    initial write_valid = 0;

    wire full, marked, unused_full, unused_empty;
    wire held = write_valid && !write_ready;
    wire issue = request && grant;
    wire settle = acknowledge_valid && !none && !late;

    assign grant = running && !full && !late && !held;
    assign acknowledge_ready = 1;
    assign notified = running && settle && marked;
    assign wrong = acknowledge_valid && (!settle || acknowledge_error);

    outstanding #(.LIMIT(WRITES), .TIMEOUT(TIMEOUT)) acknowledgements (
        .clk(clk), .issue(issue), .settle(settle), .held(held), .full(full), .none(none),
        .late(late)
    );
    fifo #(.WIDTH(1), .DEPTH(WRITES)) marks (
        .clk(clk), .reset(!running), .push(issue), .push_data(notify), .full(unused_full),
        .pop(settle), .head(marked), .empty(unused_empty)
    );

    always @(posedge clk) begin
        if (issue) write_valid <= 1;
        else if (write_ready) write_valid <= 0;
        if (issue) begin
            write_address <= base + address;
            write_data <= data;
        end
    end

    wire unused = &{1'b0, unused_full, unused_empty};
endmodule
