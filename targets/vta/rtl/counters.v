// What a program did so far: cycles, those in which each module worked, and words of memory.
module counters (
    input  wire        clk,
    input  wire        clear,
    input  wire        enable,
    input  wire        load_active,
    input  wire        compute_active,
    input  wire        store_active,
    input  wire        array_step,
    input  wire        read,
    input  wire        write,
    output reg  [31:0] cycles,
    output reg  [31:0] load_cycles,
    output reg  [31:0] compute_cycles,
    output reg  [31:0] store_cycles,
    output reg  [31:0] array_steps,
    output reg  [31:0] read_words,
    output reg  [31:0] write_words
);
    // Registers show them, before the first program too.
    initial begin
        {cycles, load_cycles, compute_cycles, store_cycles} = 0;
        {array_steps, read_words, write_words} = 0;
    end

    always @(posedge clk) begin
        if (clear) begin
            {cycles, load_cycles, compute_cycles, store_cycles} <= 0;
            {array_steps, read_words, write_words} <= 0;
        end else if (enable) begin
            cycles <= cycles + 1;
            load_cycles <= load_cycles + {31'd0, load_active};
            compute_cycles <= compute_cycles + {31'd0, compute_active};
            store_cycles <= store_cycles + {31'd0, store_active};
            array_steps <= array_steps + {31'd0, array_step};
            read_words <= read_words + {31'd0, read};
            write_words <= write_words + {31'd0, write};
        end
    end
endmodule
