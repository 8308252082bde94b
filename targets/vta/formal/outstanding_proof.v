// The counter is what was issued and not settled; a lost answer makes it `late` in time.
module outstanding_proof #(
    parameter LIMIT = 3,
    parameter TIMEOUT = 4
) (
    input wire clk,
    input wire issue,
    input wire settle,
    input wire held
);
    reg [4:0] owed = 0, quiet = 0;
    wire full, none, late;

    outstanding #(.LIMIT(LIMIT), .TIMEOUT(TIMEOUT)) unit (
        .clk(clk), .issue(issue), .settle(settle), .held(held), .full(full), .none(none),
        .late(late)
    );

    always @(*) begin
        assume(!issue || (!full && !late));
        assume(!settle || (!none && !late));
        assume(!held || !none);
    end

    always @(posedge clk) begin
        owed <= late ? {4'd0, held} : owed + {4'd0, issue} - {4'd0, settle};
        quiet <= owed == 0 || settle || late ? 5'd0 : quiet + 1'b1;
        assert(owed <= LIMIT);
        assert(none == (owed == 0));
        assert(full == (owed == LIMIT));
        assert(late == (quiet == TIMEOUT));
        if (late) assert(!none);
    end
endmodule
