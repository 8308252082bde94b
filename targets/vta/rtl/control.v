// Begins and ends programs: start, then wait for what an earlier one left on the bus, run, and wait
// until all writes are acknowledged. `fault` is 0 or a cause; the first one stays in `error`.
module control #(
    parameter [3:0] MEMORY_ERROR = 7,
    parameter [3:0] MEMORY_TIMEOUT = 8
) (
    input  wire       clk,
    input  wire       reset,
    input  wire       start,
    input  wire       finish,
    input  wire [3:0] fault,
    input  wire       reads_none,
    input  wire       reads_late,
    input  wire       reads_wrong,
    input  wire       writes_none,
    input  wire       writes_late,
    input  wire       writes_wrong,
    output wire       accept,   // of `start`
    output wire       running,  // not in the cycle of a reset
    output wire       busy,
    output wire       counts,   // cycles of the program
    output reg        done,
    output reg  [3:0] error
);
    localparam [1:0] IDLE = 0, DRAIN = 1, RUN = 2, END = 3;

    reg [1:0] state = IDLE;
    // Behind the end of a program its reads don't matter any more, only its writes.
    wire [3:0] found = state == RUN && (reads_wrong || writes_wrong) ? MEMORY_ERROR
        : state == END && writes_wrong ? MEMORY_ERROR
        : writes_late || (reads_late && state != END) ? MEMORY_TIMEOUT
        : state == RUN ? fault : 4'd0;

    // A write that the memory never takes stays on the bus.
    wire settled = writes_none || writes_late;

    assign accept = start && state == IDLE && !reset;
    assign running = state == RUN && !reset;
    assign busy = state != IDLE;
    assign counts = state == RUN || state == END;

    always @(posedge clk) begin
        if (reset) begin
            state <= IDLE;
            done <= 0;
            error <= 0;
        end else begin
            case (state)
                IDLE: if (start) state <= DRAIN;
                DRAIN: if (found != 0) state <= END;
                    else if (reads_none && writes_none) state <= RUN;
                RUN: if (found != 0 || finish) state <= END;
                END: if (settled) state <= IDLE;
            endcase
            if (accept) begin
                done <= 0;
                error <= 0;
            end else if (state != IDLE && error == 0) error <= found;
            if (state == END && settled) done <= 1;
        end
    end
endmodule
