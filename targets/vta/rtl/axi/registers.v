// The register file of tvm_bitenc/vta/registers.py, which docs/registers.md lists.
`include "registers.vh"

module registers #(
    parameter DK = 64,
    parameter DM = 8,
    parameter DN = 8,
    parameter ACT_ROWS = 1024,
    parameter WEIGHT_ROWS = 2048,
    parameter PARAM_ROWS = 1024,
    parameter TAP_ROWS = 256,
    parameter PASS_ROWS = 64,
    parameter RESIDUAL_ROWS = 4096,
    parameter OUT_ROWS = 4096,
    parameter FLOAT_UNITS = 0,
    parameter INSTRUCTION_QUEUE = 8,
    parameter TOKEN_QUEUE = 8,
    parameter READS = 128,
    parameter WRITES = 128,
    parameter STAGES = 2
) (
    input  wire        clk,
    input  wire        reset,
    input  wire        write,
    input  wire [11:0] write_address,
    input  wire [31:0] write_data,
    input  wire [3:0]  write_bytes,
    input  wire [11:0] read_address,
    output reg  [31:0] read_data,

    output reg         start,
    output reg         stop,  // reset of the accelerator
    output wire [31:0] base,
    output reg  [31:0] instructions,
    output reg  [31:0] memory_words,
    input  wire        busy,
    input  wire        done,
    input  wire [3:0]  error,
    output wire        interrupt,
    input  wire [31:0] cycles,
    input  wire [31:0] load_cycles,
    input  wire [31:0] compute_cycles,
    input  wire [31:0] store_cycles,
    input  wire [31:0] array_steps,
    input  wire [31:0] read_words,
    input  wire [31:0] write_words
);
    reg interrupt_enable, was_done, ended;
    reg [31:0] base_low;
    reg [2:0] base_high;

    wire [31:0] mask = {
        {8{write_bytes[3]}}, {8{write_bytes[2]}}, {8{write_bytes[1]}}, {8{write_bytes[0]}}
    };
    wire [31:0] set_bits = write_data & mask;
    wire [11:0] place = write_address & ~12'd3;
    wire writes_control = write && place == `REGISTER_CONTROL;
    wire writes_status = write && place == `REGISTER_STATUS;
    // A program that runs keeps what it was started with.
    wire configure = write && !busy && !start;
    wire begins = writes_control && set_bits[`CONTROL_START] && !set_bits[`CONTROL_RESET]
        && !busy && !start;
    wire stops = writes_control && set_bits[`CONTROL_RESET];
    wire clears = writes_status && set_bits[`STATUS_DONE];

    assign base = {base_high, base_low[31:3]};
    assign interrupt = interrupt_enable && ended;

    always @(posedge clk) begin
        if (reset) begin
            start <= 0;
            stop <= 1;
            interrupt_enable <= 0;
            was_done <= 0;
            ended <= 0;
            base_low <= 0;
            base_high <= 0;
            instructions <= 0;
            memory_words <= 0;
        end else begin
            start <= begins;
            stop <= stops;
            was_done <= done;
            ended <= !begins && !stops && !start && !stop
                && ((done && !was_done) || (ended && !clears));
            if (writes_control && write_bytes[0])
                interrupt_enable <= write_data[`CONTROL_INTERRUPT_ENABLE];
            if (configure)
                case (place)
                    `REGISTER_BASE_LOW: base_low <= merged(base_low) & ~32'd7;
                    `REGISTER_BASE_HIGH: base_high <= merged3(base_high);
                    `REGISTER_INSTRUCTIONS: instructions <= merged(instructions);
                    `REGISTER_MEMORY_WORDS: memory_words <= merged(memory_words);
                    default: ;
                endcase
        end
    end

    function [31:0] merged(input [31:0] old);
        merged = (old & ~mask) | set_bits;
    endfunction

    function [2:0] merged3(input [2:0] old);
        merged3 = write_bytes[0] ? write_data[2:0] : old;
    endfunction

    wire [3:0] cause = ended ? error : 4'd0;

    always @(*)
        case (read_address & ~12'd3)
            `REGISTER_IDENTIFICATION: read_data = `VALUE_IDENTIFICATION;
            `REGISTER_VERSION: read_data = `VALUE_VERSION;
            `REGISTER_INSTRUCTION_SET: read_data = `VALUE_INSTRUCTION_SET;
            `REGISTER_DK: read_data = DK;
            `REGISTER_DM: read_data = DM;
            `REGISTER_DN: read_data = DN;
            `REGISTER_ACT_ROWS: read_data = ACT_ROWS;
            `REGISTER_WEIGHT_ROWS: read_data = WEIGHT_ROWS;
            `REGISTER_PARAM_ROWS: read_data = PARAM_ROWS;
            `REGISTER_TAP_ROWS: read_data = TAP_ROWS;
            `REGISTER_PASS_ROWS: read_data = PASS_ROWS;
            `REGISTER_RESIDUAL_ROWS: read_data = RESIDUAL_ROWS;
            `REGISTER_OUT_ROWS: read_data = OUT_ROWS;
            `REGISTER_FLOAT_UNITS: read_data = FLOAT_UNITS;
            `REGISTER_INSTRUCTION_QUEUE: read_data = INSTRUCTION_QUEUE;
            `REGISTER_TOKEN_QUEUE: read_data = TOKEN_QUEUE;
            `REGISTER_READS: read_data = READS;
            `REGISTER_WRITES: read_data = WRITES;
            `REGISTER_STAGES: read_data = STAGES;
            `REGISTER_CONTROL: read_data = {29'd0, interrupt_enable, 2'd0};
            `REGISTER_STATUS: read_data = {24'd0, cause, 2'd0, ended, busy || start};
            `REGISTER_BASE_LOW: read_data = base_low;
            `REGISTER_BASE_HIGH: read_data = {29'd0, base_high};
            `REGISTER_INSTRUCTIONS: read_data = instructions;
            `REGISTER_MEMORY_WORDS: read_data = memory_words;
            `REGISTER_CYCLES: read_data = cycles;
            `REGISTER_LOAD_CYCLES: read_data = load_cycles;
            `REGISTER_COMPUTE_CYCLES: read_data = compute_cycles;
            `REGISTER_STORE_CYCLES: read_data = store_cycles;
            `REGISTER_ARRAY_STEPS: read_data = array_steps;
            `REGISTER_READ_WORDS: read_data = read_words;
            `REGISTER_WRITE_WORDS: read_data = write_words;
            default: read_data = 0;
        endcase
endmodule
