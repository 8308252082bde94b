// A fifo gives what was pushed, each once and in order. `chosen` stands for any word of all.
module fifo_proof #(
    parameter DEPTH = 4
) (
    input wire       clk,
    input wire       reset,
    input wire       push,
    input wire       pop,
    input wire [1:0] data
);
    (* anyconst *) reg [4:0] chosen;
    reg [4:0] pushes, pops;
    reg [1:0] kept;
    wire [1:0] head;
    wire full, empty;

    fifo #(.WIDTH(2), .DEPTH(DEPTH)) unit (
        .clk(clk), .reset(reset), .push(push), .push_data(data), .full(full), .pop(pop),
        .head(head), .empty(empty)
    );

    initial assume(reset);
    always @(*) begin
        assume(!(push && full));
        assume(!(pop && empty));
    end

    always @(posedge clk) begin
        pushes <= reset ? 5'd0 : pushes + {4'd0, push};
        pops <= reset ? 5'd0 : pops + {4'd0, pop};
        if (push && pushes == chosen) kept <= data;
    end

    reg begun = 0;
    always @(posedge clk) begin
        begun <= 1;
        if (begun) begin
            assert(empty == (pushes == pops));
            assert(full == (pushes - pops == DEPTH));
            assert(pushes - pops <= DEPTH);
            if (pops == chosen && pushes != pops) assert(head == kept);
        end
    end
endmodule
