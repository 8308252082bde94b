// The accelerator: fetch, load, compute and store around their buffers, and their ports to memory.
//
// `start` begins a program, in any cycle behind the end of the one before; `done` and `error`, 0 or
// the first of the causes below, stay until the next start or reset.
`include "isa.vh"

module accelerator #(
    parameter DM = 8,
    parameter DN = 8,
    parameter DK = 64,
    parameter STAGES = 2,  // of a popcount
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
    parameter READS = 128,  // that the memory may owe an answer
    parameter WRITES = 128,
    parameter TIMEOUT = 4096  // cycles that the memory may take for an answer
) (
    input  wire        clk,
    input  wire        reset,  // at any time; the memory needs none
    input  wire        start,
    input  wire [31:0] base,  // word that all addresses of the program count from
    input  wire [31:0] instructions,
    input  wire [31:0] memory_words,  // from `base` on, that it may touch
    output wire        busy,
    output wire        done,
    output wire [3:0]  error,
    // Reads of words are answered in order, each with its id.
    output wire        read_valid,
    input  wire        read_ready,
    output wire [31:0] read_address,
    output wire [3:0]  read_id,
    input  wire        response_valid,
    output wire        response_ready,
    input  wire [63:0] response_data,
    input  wire [3:0]  response_id,
    input  wire        response_error,
    // Writes are acknowledged in order.
    output wire        write_valid,
    input  wire        write_ready,
    output wire [31:0] write_address,
    output wire [63:0] write_data,
    input  wire        acknowledge_valid,
    output wire        acknowledge_ready,
    input  wire        acknowledge_error,
    // Of the program so far.
    output wire [31:0] cycles,
    output wire [31:0] load_cycles,
    output wire [31:0] compute_cycles,
    output wire [31:0] store_cycles,
    output wire [31:0] array_steps,
    output wire [31:0] read_words,
    output wire [31:0] write_words,
    // What each module does, for timelines and utilization.
    output wire        load_active,
    output wire        compute_active,
    output wire        store_active,
    output wire        array_step,
    output wire        ends_layer
);
    localparam [3:0] ILLEGAL = 1, MEMORY_RANGE = 2, BUFFER_RANGE = 3, TOKEN_OVERFLOW = 4,
        DEADLOCK = 5, UNFINISHED = 6, MEMORY_ERROR = 7, MEMORY_TIMEOUT = 8;
    // A row of act or weight has DK bits of each bank, and a word of the memory at least.
    localparam ROW = DK > 64 ? DK : 64;
    localparam SLICES = ROW / 64;

    wire accept, running, counts;
    wire stop = !running;
    reg [31:0] program_base, program_instructions, program_words;

    always @(posedge clk) if (accept) begin
        program_base <= base;
        program_instructions <= instructions;
        program_words <= memory_words;
    end

    wire fetch_request, fetch_grant, fetch_response, load_request, load_grant, load_response;
    wire [31:0] fetch_address, load_address, store_address;
    wire reads_none, reads_late, reads_wrong, writes_none, writes_late, writes_wrong;
    wire store_request, store_notify, store_grant, store_notified;
    wire [63:0] store_data;

    read_port #(.READS(READS), .TIMEOUT(TIMEOUT)) read_port (
        .clk(clk), .running(running), .base(program_base), .fetch_request(fetch_request),
        .fetch_address(fetch_address), .fetch_grant(fetch_grant),
        .fetch_response(fetch_response), .load_request(load_request),
        .load_address(load_address), .load_grant(load_grant), .load_response(load_response),
        .none(reads_none), .late(reads_late), .wrong(reads_wrong), .read_valid(read_valid),
        .read_ready(read_ready), .read_address(read_address), .read_id(read_id),
        .response_valid(response_valid), .response_ready(response_ready),
        .response_id(response_id), .response_error(response_error)
    );
    write_port #(.WRITES(WRITES), .TIMEOUT(TIMEOUT)) write_port (
        .clk(clk), .running(running), .base(program_base), .request(store_request),
        .address(store_address), .data(store_data), .notify(store_notify), .grant(store_grant),
        .notified(store_notified), .none(writes_none), .late(writes_late),
        .wrong(writes_wrong), .write_valid(write_valid), .write_ready(write_ready),
        .write_address(write_address), .write_data(write_data),
        .acknowledge_valid(acknowledge_valid), .acknowledge_ready(acknowledge_ready),
        .acknowledge_error(acknowledge_error)
    );

    wire [255:0] fetched;
    wire push_load, push_compute, push_store, full_load, full_compute, full_store;
    wire fetch_done, fetch_blocked, fetch_illegal, fetch_range;

    fetch fetch (
        .clk(clk), .reset(stop), .instructions(program_instructions),
        .memory_words(program_words), .request(fetch_request), .address(fetch_address),
        .grant(fetch_grant), .response(fetch_response), .data(response_data),
        .instruction(fetched),
        .push_load(push_load), .push_compute(push_compute), .push_store(push_store),
        .full_load(full_load), .full_compute(full_compute), .full_store(full_store),
        .done(fetch_done), .blocked(fetch_blocked), .illegal(fetch_illegal),
        .out_of_range(fetch_range)
    );

    wire take_load, take_compute, take_store, empty_load, empty_compute, empty_store;
    wire [255:0] head_load, head_compute, head_store;

    fifo #(.WIDTH(256), .DEPTH(INSTRUCTION_QUEUE)) load_queue (
        .clk(clk), .reset(stop), .push(push_load), .push_data(fetched), .full(full_load),
        .pop(take_load), .head(head_load), .empty(empty_load)
    );
    fifo #(.WIDTH(256), .DEPTH(INSTRUCTION_QUEUE)) compute_queue (
        .clk(clk), .reset(stop), .push(push_compute), .push_data(fetched), .full(full_compute),
        .pop(take_compute), .head(head_compute), .empty(empty_compute)
    );
    fifo #(.WIDTH(256), .DEPTH(INSTRUCTION_QUEUE)) store_queue (
        .clk(clk), .reset(stop), .push(push_store), .push_data(fetched), .full(full_store),
        .pop(take_store), .head(head_store), .empty(empty_store)
    );

    wire give_lc, take_lc, has_lc, left_lc, over_lc;
    wire give_cl, take_cl, has_cl, left_cl, over_cl;
    wire give_cs, take_cs, has_cs, left_cs, over_cs;
    wire give_sc, take_sc, has_sc, left_sc, over_sc;

    tokens #(.CAPACITY(TOKEN_QUEUE)) load_to_compute (
        .clk(clk), .reset(stop), .give(give_lc), .take(take_lc), .available(has_lc),
        .left(left_lc), .overflow(over_lc)
    );
    tokens #(.CAPACITY(TOKEN_QUEUE)) compute_to_load (
        .clk(clk), .reset(stop), .give(give_cl), .take(take_cl), .available(has_cl),
        .left(left_cl), .overflow(over_cl)
    );
    tokens #(.CAPACITY(TOKEN_QUEUE)) compute_to_store (
        .clk(clk), .reset(stop), .give(give_cs), .take(take_cs), .available(has_cs),
        .left(left_cs), .overflow(over_cs)
    );
    tokens #(.CAPACITY(TOKEN_QUEUE)) store_to_compute (
        .clk(clk), .reset(stop), .give(give_sc), .take(take_sc), .available(has_sc),
        .left(left_sc), .overflow(over_sc)
    );

    wire load_idle, load_waiting, load_illegal, load_memory, load_buffer;
    wire [DN-1:0] act_write;
    wire [$clog2(ACT_ROWS)-1:0] act_write_row;
    wire [DM-1:0] weight_write;
    wire [$clog2(WEIGHT_ROWS)-1:0] weight_write_row;
    wire [SLICES-1:0] slice;
    wire [(DM+1)/2-1:0] param_write;
    wire [$clog2(PARAM_ROWS)-1:0] param_write_row;
    wire tap_write, pass_write;
    wire [$clog2(TAP_ROWS)-1:0] tap_write_row;
    wire [$clog2(PASS_ROWS)-1:0] pass_write_row;
    wire residual_write;
    wire [$clog2(RESIDUAL_ROWS)-1:0] residual_write_row;

    load #(
        .DM(DM), .DN(DN), .SLICES(SLICES), .ACT_ROWS(ACT_ROWS), .WEIGHT_ROWS(WEIGHT_ROWS),
        .PARAM_ROWS(PARAM_ROWS), .TAP_ROWS(TAP_ROWS), .PASS_ROWS(PASS_ROWS),
        .RESIDUAL_ROWS(RESIDUAL_ROWS)
    ) load (
        .clk(clk), .reset(stop), .valid(!empty_load), .instruction(head_load), .take(take_load),
        .token(has_cl), .take_token(take_cl), .give_token(give_lc), .idle(load_idle),
        .waiting(load_waiting), .memory_words(program_words), .request(load_request),
        .address(load_address), .grant(load_grant), .response(load_response),
        .act_write(act_write), .act_row(act_write_row),
        .weight_write(weight_write), .weight_row(weight_write_row), .slice(slice),
        .param_write(param_write),
        .param_row(param_write_row), .tap_write(tap_write), .tap_row(tap_write_row),
        .pass_write(pass_write), .pass_row(pass_write_row), .residual_write(residual_write),
        .residual_row(residual_write_row), .illegal(load_illegal),
        .memory_range(load_memory), .buffer_range(load_buffer)
    );

    wire store_idle, store_waiting, store_illegal, store_memory, store_buffer, out_read;
    wire [$clog2(OUT_ROWS)-1:0] out_read_row;
    wire [63:0] out_read_data;

    store #(.OUT_ROWS(OUT_ROWS)) store (
        .clk(clk), .reset(stop), .valid(!empty_store), .instruction(head_store),
        .take(take_store), .token(has_cs), .take_token(take_cs), .give_token(give_sc),
        .idle(store_idle), .waiting(store_waiting), .memory_words(program_words),
        .request(store_request), .address(store_address), .data(store_data),
        .notify(store_notify), .grant(store_grant), .notified(store_notified),
        .none(writes_none), .out_read(out_read), .out_row(out_read_row),
        .out_data(out_read_data), .illegal(store_illegal), .memory_range(store_memory),
        .buffer_range(store_buffer)
    );

    wire compute_idle, compute_waiting, compute_illegal, compute_buffer, finish;
    wire [$clog2(TAP_ROWS)-1:0] tap_row;
    wire [$clog2(PASS_ROWS)-1:0] pass_row;
    wire [63:0] tap_data, pass_data;
    wire [DN*$clog2(ACT_ROWS)-1:0] act_rows;
    wire [DN*ROW-1:0] act_data;
    wire [$clog2(WEIGHT_ROWS)-1:0] weight_row;
    wire [DM*ROW-1:0] weight_data;
    wire [$clog2(PARAM_ROWS)-1:0] constant_row;
    wire [DM*$clog2(PARAM_ROWS)-1:0] threshold_row;
    wire [DM*32-1:0] constant_data, threshold_data;
    wire [$clog2(RESIDUAL_ROWS)-1:0] residual_row;
    wire [63:0] residual_data;
    wire [64/DM-1:0] out_write;
    wire [$clog2(OUT_ROWS)-1:0] out_write_row;
    wire [63:0] out_write_data;

    compute #(
        .DM(DM), .DN(DN), .DK(DK), .STAGES(STAGES), .ACT_ROWS(ACT_ROWS),
        .WEIGHT_ROWS(WEIGHT_ROWS), .PARAM_ROWS(PARAM_ROWS), .TAP_ROWS(TAP_ROWS),
        .PASS_ROWS(PASS_ROWS), .RESIDUAL_ROWS(RESIDUAL_ROWS), .OUT_ROWS(OUT_ROWS),
        .FLOAT_UNITS(FLOAT_UNITS)
    ) compute (
        .clk(clk), .reset(stop), .valid(!empty_compute), .instruction(head_compute),
        .take(take_compute), .token_prev(has_lc), .token_next(has_sc), .take_prev(take_lc),
        .take_next(take_sc), .give_prev(give_cl), .give_next(give_cs), .idle(compute_idle),
        .waiting(compute_waiting), .finish(finish), .tap_row(tap_row), .tap_data(tap_data),
        .pass_row(pass_row), .pass_data(pass_data), .act_rows(act_rows), .act_data(act_data),
        .weight_row(weight_row), .weight_data(weight_data), .constant_row(constant_row),
        .constant_data(constant_data), .threshold_row(threshold_row),
        .threshold_data(threshold_data), .residual_row(residual_row),
        .residual_data(residual_data),
        .out_write(out_write), .out_row(out_write_row), .out_data(out_write_data),
        .step(array_step), .ends_layer(ends_layer), .illegal(compute_illegal),
        .buffer_range(compute_buffer)
    );

    // The first word of a row of act clears the others.
    wire [SLICES-1:0] act_slices = slice[0] ? {SLICES{1'b1}} : slice;
    wire [ROW-1:0] row_data;

    genvar i;
    generate
        for (i = 0; i < SLICES; i = i + 1) begin : slices
            assign row_data[i*64 +: 64] = slice[i] ? response_data : 64'd0;
        end
        for (i = 0; i < DN; i = i + 1) begin : act_banks
            ram #(.WIDTH(ROW), .DEPTH(ACT_ROWS)) bank (
                .clk(clk), .write(act_write[i] ? act_slices : {SLICES{1'b0}}),
                .write_row(act_write_row), .write_data(row_data), .read(1'b1),
                .read_row(act_rows[i*$clog2(ACT_ROWS) +: $clog2(ACT_ROWS)]),
                .read_data(act_data[i*ROW +: ROW])
            );
        end
        for (i = 0; i < DM; i = i + 1) begin : weight_banks
            ram #(.WIDTH(ROW), .DEPTH(WEIGHT_ROWS)) bank (
                .clk(clk), .write(weight_write[i] ? slice : {SLICES{1'b0}}),
                .write_row(weight_write_row), .write_data(row_data), .read(1'b1),
                .read_row(weight_row), .read_data(weight_data[i*ROW +: ROW])
            );
        end
        // Two copies of the parameters, for each is read by two units at a time.
        for (i = 0; i < DM; i = i + 1) begin : param_banks
            ram #(.WIDTH(32), .SLICE(32), .DEPTH(PARAM_ROWS)) constants (
                .clk(clk), .write(param_write[i/2]), .write_row(param_write_row),
                .write_data(response_data[(i%2)*32 +: 32]), .read(1'b1), .read_row(constant_row),
                .read_data(constant_data[i*32 +: 32])
            );
            ram #(.WIDTH(32), .SLICE(32), .DEPTH(PARAM_ROWS)) thresholds (
                .clk(clk), .write(param_write[i/2]), .write_row(param_write_row),
                .write_data(response_data[(i%2)*32 +: 32]), .read(1'b1),
                .read_row(threshold_row[i*$clog2(PARAM_ROWS) +: $clog2(PARAM_ROWS)]),
                .read_data(threshold_data[i*32 +: 32])
            );
        end
    endgenerate

    table_ram #(.DEPTH(TAP_ROWS)) tap_table (
        .clk(clk), .write(tap_write), .write_row(tap_write_row), .write_data(response_data),
        .read_row(tap_row), .read_data(tap_data)
    );
    table_ram #(.DEPTH(PASS_ROWS)) pass_table (
        .clk(clk), .write(pass_write), .write_row(pass_write_row), .write_data(response_data),
        .read_row(pass_row), .read_data(pass_data)
    );
    ram #(.DEPTH(RESIDUAL_ROWS)) residual_buffer (
        .clk(clk), .write(residual_write), .write_row(residual_write_row),
        .write_data(response_data), .read(1'b1), .read_row(residual_row),
        .read_data(residual_data)
    );
    ram #(.SLICE(DM), .DEPTH(OUT_ROWS)) out_buffer (
        .clk(clk), .write(out_write), .write_row(out_write_row), .write_data(out_write_data),
        .read(out_read), .read_row(out_read_row), .read_data(out_read_data)
    );

    // A deadlock: nothing runs, nothing comes, and whatever has an instruction waits for a token.
    wire fetch_stuck = fetch_done || fetch_blocked;
    wire is_stuck = fetch_stuck && (load_waiting || (load_idle && empty_load))
        && (compute_waiting || (compute_idle && empty_compute))
        && (store_waiting || (store_idle && empty_store));
    wire is_unfinished = finish && !(fetch_done && load_idle && empty_load && store_idle
        && empty_store && !left_lc && !left_cl && !left_cs && !left_sc && !give_cl && !give_cs);

    wire any_range = load_buffer || store_buffer || compute_buffer;
    wire any_memory = fetch_range || load_memory || store_memory;
    wire any_illegal = fetch_illegal || load_illegal || store_illegal || compute_illegal;

    wire [3:0] fault = any_illegal ? ILLEGAL : any_memory ? MEMORY_RANGE
        : any_range ? BUFFER_RANGE : over_lc || over_cl || over_cs || over_sc ? TOKEN_OVERFLOW
        : is_unfinished ? UNFINISHED : is_stuck ? DEADLOCK : 4'd0;

    control #(.MEMORY_ERROR(MEMORY_ERROR), .MEMORY_TIMEOUT(MEMORY_TIMEOUT)) control (
        .clk(clk), .reset(reset), .start(start), .finish(finish), .fault(fault),
        .reads_none(reads_none), .reads_late(reads_late), .reads_wrong(reads_wrong),
        .writes_none(writes_none), .writes_late(writes_late), .writes_wrong(writes_wrong),
        .accept(accept), .running(running), .busy(busy), .counts(counts), .done(done),
        .error(error)
    );
    counters counters (
        .clk(clk), .clear(accept), .enable(counts), .load_active(load_active),
        .compute_active(compute_active), .store_active(store_active), .array_step(array_step),
        .read(read_valid && read_ready), .write(write_valid && write_ready), .cycles(cycles),
        .load_cycles(load_cycles), .compute_cycles(compute_cycles), .store_cycles(store_cycles),
        .array_steps(array_steps), .read_words(read_words), .write_words(write_words)
    );

    assign load_active = !load_idle;
    assign compute_active = !compute_idle;
    assign store_active = !store_idle;
endmodule
