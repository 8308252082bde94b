// How many answers the memory still owes. No reset clears it, since none reaches the memory.
//
// Where none comes for TIMEOUT cycles, all are given up: `late` for one cycle. Only the request
// that the memory hasn't taken yet, `held`, is still owed an answer then.
module outstanding #(
    parameter LIMIT = 64,
    parameter TIMEOUT = 4096
) (
    input  wire clk,
    input  wire issue,   // not where `full` or `late`
    input  wire settle,  // not where `none`
    input  wire held,
    output wire full,
    output wire none,
    output wire late
);
    localparam BITS = $clog2(LIMIT + 1);
    localparam TIMER = $clog2(TIMEOUT + 1);

    reg [BITS-1:0] count = 0;
    reg [TIMER-1:0] waited = 0;

    assign full = {{32-BITS{1'b0}}, count} == LIMIT;
    assign none = count == 0;
    assign late = {{32-TIMER{1'b0}}, waited} == TIMEOUT;

    always @(posedge clk) begin
        if (late && !held) count <= 0;
        else if (late) count <= 1;
        else if (issue && !settle) count <= count + 1'b1;
        else if (settle && !issue) count <= count - 1'b1;
        waited <= none || settle || late ? {TIMER{1'b0}} : waited + 1'b1;
    end
endmodule
