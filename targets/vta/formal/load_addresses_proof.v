// Addresses of a load are base + row * row_words + pixel * pixel_words + word, the words innermost,
// for all sizes up to MOST and small strides.
module load_addresses_proof #(
    parameter MOST = 2
) (
    input wire clk,
    input wire start,
    input wire advance
);
    (* anyconst *) reg [3:0] base, row_words, pixel_words;
    (* anyconst *) reg [1:0] rows, pixels, words;
    reg [1:0] row, pixel, word;
    reg begun = 0, ended = 0;
    wire [31:0] address;
    wire last;

    load_addresses unit (
        .clk(clk), .start(start), .first({28'd0, base}), .advance(advance), .rows({12'd0, rows}),
        .row_words({20'd0, row_words}), .pixels({12'd0, pixels}), .pixel_words({12'd0, pixel_words}),
        .words({10'd0, words}), .address(address), .last(last)
    );

    initial assume(start);
    always @(*) begin
        assume(rows != 0 && rows <= MOST);
        assume(pixels != 0 && pixels <= MOST);
        assume(words != 0 && words <= MOST);
        assume(!advance || !ended);
    end

    wire last_word = word + 2'd1 == words, last_pixel = pixel + 2'd1 == pixels;
    always @(posedge clk) begin
        if (start) begin
            {row, pixel, word, ended} <= 0;
            begun <= 1;
        end else if (advance) begin
            word <= last_word ? 2'd0 : word + 1'b1;
            if (last_word) pixel <= last_pixel ? 2'd0 : pixel + 1'b1;
            if (last_word && last_pixel) row <= row + 1'b1;
            if (last) ended <= 1;
        end
    end

    wire [7:0] place = {4'd0, base} + row * row_words + pixel * pixel_words + {6'd0, word};
    always @(posedge clk) if (begun && !ended) begin
        assert(address == {24'd0, place});
        assert(last == (last_word && last_pixel && row + 2'd1 == rows));
        assert(row < rows);
    end
endmodule
