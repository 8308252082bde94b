// The accelerator with a memory of a fixed latency, for Icarus: reads words, runs, and writes them.
`timescale 1ns / 1ns

module testbench;
    parameter WORDS = 4096;
    parameter LATENCY = 16;

    reg clk = 0, reset = 1;
    reg [31:0] instructions;
    reg [63:0] memory [0:WORDS-1];
    reg [LATENCY-1:0] valid = 0, tag = 0;
    reg [63:0] data [0:LATENCY-1];
    wire request, request_write, request_tag, done;
    wire [31:0] request_address;
    wire [63:0] request_data;
    wire [2:0] error;
    integer i, cycles;

    accelerator accelerator (
        .clk(clk), .reset(reset), .instructions(instructions), .memory_words(WORDS),
        .request(request), .request_write(request_write), .request_tag(request_tag),
        .request_address(request_address), .request_data(request_data),
        .response(valid[LATENCY-1]), .response_tag(tag[LATENCY-1]),
        .response_data(data[LATENCY-1]), .done(done), .error(error), .load_active(),
        .compute_active(), .store_active(), .array_step()
    );

    always #5 clk = !clk;

    always @(posedge clk) begin
        valid <= {valid[LATENCY-2:0], request && !request_write && request_address < WORDS};
        tag <= {tag[LATENCY-2:0], request_tag};
        for (i = 1; i < LATENCY; i = i + 1) data[i] <= data[i-1];
        if (request_address < WORDS) data[0] <= memory[request_address];
        if (request && request_write && request_address < WORDS)
            memory[request_address] <= request_data;
        if (!reset) cycles <= cycles + 1;
    end

    initial begin
        if (!$value$plusargs("instructions=%d", instructions)) $finish;
        $readmemh("memory.hex", memory);
        cycles = 0;
        #22 reset = 0;
        wait (done || cycles > 1000000);
        $display("error %0d cycles %0d", error, cycles);
        $writememh("result.hex", memory);
        $finish;
    end
endmodule
