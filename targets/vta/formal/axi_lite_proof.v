// The slave and its registers, for every behaviour of the processor and of the accelerator.
`include "registers.vh"

module axi_lite_proof (
    input wire        clk,
    input wire        reset,
    input wire        awvalid,
    input wire [11:0] awaddr,
    input wire        wvalid,
    input wire [31:0] wdata,
    input wire [3:0]  wstrb,
    input wire        bready,
    input wire        arvalid,
    input wire [11:0] araddr,
    input wire        rready,
    input wire        done,
    input wire [3:0]  error,
    input wire [31:0] cycles
);
    wire awready, wready, bvalid, arready, rvalid, write, start, stop, interrupt;
    wire [31:0] rdata, write_data, read_data, base, instructions, memory_words;
    wire [11:0] write_address, read_address;
    wire [3:0] write_bytes;

    axi_lite slave (
        .clk(clk), .reset(reset), .awvalid(awvalid), .awready(awready), .awaddr(awaddr),
        .wvalid(wvalid), .wready(wready), .wdata(wdata), .wstrb(wstrb), .bvalid(bvalid),
        .bready(bready), .arvalid(arvalid), .arready(arready), .araddr(araddr),
        .rvalid(rvalid), .rready(rready), .rdata(rdata), .write(write),
        .write_address(write_address), .write_data(write_data), .write_bytes(write_bytes),
        .read_address(read_address), .read_data(read_data)
    );

    // The accelerator: busy from start until done or stopped.
    reg busy = 0;
    always @(posedge clk) busy <= !reset && !stop && (start || (busy && !done));

    registers registers (
        .clk(clk), .reset(reset), .write(write), .write_address(write_address),
        .write_data(write_data), .write_bytes(write_bytes), .read_address(read_address),
        .read_data(read_data), .start(start), .stop(stop), .base(base),
        .instructions(instructions), .memory_words(memory_words), .busy(busy), .done(done),
        .error(error), .interrupt(interrupt), .cycles(cycles), .load_cycles(0),
        .compute_cycles(0), .store_cycles(0), .array_steps(0), .read_words(0), .write_words(0)
    );

    reg started = 0;
    always @(posedge clk) started <= 1;
    always @(*) assume (reset == !started);

    reg [7:0] addresses = 0, words = 0, replies = 0, asked = 0, answered = 0, pulses = 0;
    (* anyconst *) wire [7:0] chosen;
    reg [11:0] chosen_address, chosen_place;
    reg [35:0] chosen_word;

    always @(posedge clk) if (started) begin
        if (awvalid && awready) addresses <= addresses + 1;
        if (awvalid && awready && addresses == chosen) chosen_address <= awaddr;
        if (wvalid && wready) words <= words + 1;
        if (wvalid && wready && words == chosen) chosen_word <= {wstrb, wdata};
        if (bvalid && bready) replies <= replies + 1;
        if (write) pulses <= pulses + 1;
        if (arvalid && arready) asked <= asked + 1;
        if (arvalid && arready && asked == chosen) chosen_place <= araddr;
        if (rvalid && rready) answered <= answered + 1;
    end

    always @(posedge clk) if (started && $past(started)) begin
        // Valid holds with its payload until ready; a response needs its request.
        if ($past(bvalid && !bready)) assert (bvalid);
        if ($past(rvalid && !rready)) assert (rvalid && $stable(rdata));
        if (bvalid) assert (replies != addresses && replies != words);
        if (rvalid) assert (answered != asked);
        // Each write happens once, with its own address and data, before it is answered.
        if (write) assert (pulses != addresses && pulses != words);
        if (write && pulses == chosen) begin
            assert (write_address == chosen_address);
            assert ({write_bytes, write_data} == chosen_word);
        end
        if (bvalid) assert (replies != pulses);
        // A read returns what its register held.
        if (rvalid && answered == chosen) begin
            if (chosen_place[11:2] == `REGISTER_IDENTIFICATION >> 2)
                assert (rdata == `VALUE_IDENTIFICATION);
            if (chosen_place[11:2] == `REGISTER_INSTRUCTION_SET >> 2)
                assert (rdata == `VALUE_INSTRUCTION_SET);
        end
        // A program that runs keeps what it was started with, and isn't started twice.
        if ($past(busy || start)) begin
            assert ($stable(base) && $stable(instructions) && $stable(memory_words));
            assert (!start);
        end
        if (start) assert (!busy && !interrupt);
        if (interrupt && !$past(interrupt))
            assert ($past(done) || $past(write && write_address[11:2] == `REGISTER_CONTROL >> 2));
    end

    always @(posedge clk) if (started) begin
        cover (start);
        cover (interrupt && $past(busy));
        cover (rvalid && answered == 2);
        cover (busy && base == 32'h12345678);
    end
endmodule
