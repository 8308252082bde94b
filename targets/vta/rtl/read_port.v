// Reads of fetch and load on one channel, fetch first. Their ids count modulo 16, so that an answer
// that is lost, repeated or out of order has not the id that is due: it is `wrong`.
//
// What is on the bus survives a reset, and so does the count of answers to come. Those that come
// while the machine doesn't run are dropped.
module read_port #(
    parameter READS = 64,
    parameter TIMEOUT = 4096
) (
    input  wire        clk,
    input  wire        running,
    input  wire [31:0] base,
    input  wire        fetch_request,
    input  wire [31:0] fetch_address,
    output wire        fetch_grant,
    output wire        fetch_response,
    input  wire        load_request,
    input  wire [31:0] load_address,
    output wire        load_grant,
    output wire        load_response,
    output wire        none,
    output wire        late,
    output wire        wrong,
    output reg         read_valid,
    input  wire        read_ready,
    output reg  [31:0] read_address,
    output reg  [3:0]  read_id,
    input  wire        response_valid,
    output wire        response_ready,
    input  wire [3:0]  response_id,
    input  wire        response_error
);
    reg [3:0] next_id, due_id;
    initial {read_valid, next_id, due_id} = 0;

    wire full, is_fetch, unused_full, unused_empty;
    wire held = read_valid && !read_ready;
    wire room = running && !full && !late && !held;
    wire issue = room && (fetch_request || load_request);
    wire settle = response_valid && !none && !late && response_id == due_id;

    assign fetch_grant = room;
    assign load_grant = room && !fetch_request;
    assign response_ready = 1;  // Both readers have a place for all that they asked for.
    assign fetch_response = running && settle && is_fetch;
    assign load_response = running && settle && !is_fetch;
    assign wrong = response_valid && (!settle || response_error);

    outstanding #(.LIMIT(READS), .TIMEOUT(TIMEOUT)) answers (
        .clk(clk), .issue(issue), .settle(settle), .held(held), .full(full), .none(none),
        .late(late)
    );
    fifo #(.WIDTH(1), .DEPTH(READS)) readers (
        .clk(clk), .reset(!running), .push(issue), .push_data(fetch_request), .full(unused_full),
        .pop(settle), .head(is_fetch), .empty(unused_empty)
    );

    always @(posedge clk) begin
        if (issue) read_valid <= 1;
        else if (read_ready) read_valid <= 0;
        if (issue) begin
            read_address <= base + (fetch_request ? fetch_address : load_address);
            read_id <= next_id;
            next_id <= next_id + 1'b1;
        end
        if (late) due_id <= held ? read_id : next_id;
        else if (settle) due_id <= due_id + 1'b1;
    end

    wire unused = &{1'b0, unused_full, unused_empty};
endmodule
