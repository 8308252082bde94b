// Every token is taken once at most; more than CAPACITY raise the flag, and nothing else does.
module tokens_proof #(
    parameter CAPACITY = 3
) (
    input wire clk,
    input wire reset,
    input wire give,
    input wire take
);
    reg [5:0] gives, takes;
    reg exceeded;
    wire available, left, overflow;

    tokens #(.CAPACITY(CAPACITY)) unit (
        .clk(clk), .reset(reset), .give(give), .take(take), .available(available), .left(left),
        .overflow(overflow)
    );

    initial assume(reset);
    always @(*) assume(!take || available);

    always @(posedge clk) begin
        gives <= reset ? 6'd0 : gives + {5'd0, give};
        takes <= reset ? 6'd0 : takes + {5'd0, take};
        if (reset) exceeded <= 0;
        else if (gives - takes + {5'd0, give} - {5'd0, take} > CAPACITY) exceeded <= 1;
    end

    reg begun = 0;
    always @(posedge clk) begin
        begun <= 1;
        if (begun) begin
            assert(takes <= gives);
            assert(!available || takes != gives);
            assert(overflow == exceeded);
            if (!exceeded) begin
                assert(available == (takes != gives));
                assert(left == (takes + {5'd0, take} != gives));
            end
        end
    end
endmodule
