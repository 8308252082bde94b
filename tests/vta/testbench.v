// The accelerator with a memory of a fixed latency, for Icarus: reads words, runs, and writes them.
`timescale 1ns / 1ns

module testbench;
    parameter WORDS = 4096;
    parameter LATENCY = 16;

    reg clk = 0, reset = 1, start = 0;
    reg [31:0] instructions;
    reg [63:0] memory [0:WORDS-1];
    reg [LATENCY-1:0] valid = 0, written = 0;
    reg [63:0] data [0:LATENCY-1];
    reg [3:0] id [0:LATENCY-1];
    wire busy, done, read_valid, write_valid;
    wire [31:0] read_address, write_address, cycles;
    wire [3:0] read_id, error;
    wire [63:0] write_data;
    integer i;

    accelerator accelerator (
        .clk(clk), .reset(reset), .start(start), .base(0), .instructions(instructions),
        .memory_words(WORDS), .busy(busy), .done(done), .error(error), .read_valid(read_valid),
        .read_ready(1'b1), .read_address(read_address), .read_id(read_id),
        .response_valid(valid[LATENCY-1]), .response_ready(), .response_data(data[LATENCY-1]),
        .response_id(id[LATENCY-1]), .response_error(1'b0), .write_valid(write_valid),
        .write_ready(1'b1), .write_address(write_address), .write_data(write_data),
        .acknowledge_valid(written[LATENCY-1]), .acknowledge_ready(), .acknowledge_error(1'b0),
        .cycles(cycles), .load_cycles(), .compute_cycles(), .store_cycles(), .array_steps(),
        .read_words(), .write_words(), .load_active(), .compute_active(), .store_active(),
        .array_step()
    );

    always #5 clk = !clk;

    always @(posedge clk) begin
        valid <= {valid[LATENCY-2:0], read_valid};
        written <= {written[LATENCY-2:0], write_valid};
        for (i = 1; i < LATENCY; i = i + 1) begin
            data[i] <= data[i-1];
            id[i] <= id[i-1];
        end
        data[0] <= memory[read_address % WORDS];
        id[0] <= read_id;
        if (write_valid) memory[write_address % WORDS] <= write_data;
    end

    initial begin
        if (!$value$plusargs("instructions=%d", instructions)) $finish;
        $readmemh("memory.hex", memory);
        #22 reset = 0;
        start = 1;
        #10 start = 0;
        wait (done || cycles > 1000000);
        $display("error %0d cycles %0d", error, cycles);
        $writememh("result.hex", memory);
        $finish;
    end
endmodule
