// Addresses of a load in order: first + row * row_words + pixel * pixel_words + word.
module load_addresses (
    input  wire        clk,
    input  wire        start,  // with the sizes, none 0, which hold until the last address
    input  wire [31:0] first,
    input  wire        advance,
    input  wire [13:0] rows,
    input  wire [23:0] row_words,
    input  wire [13:0] pixels,
    input  wire [15:0] pixel_words,
    input  wire [11:0] words,
    output wire [31:0] address,
    output wire        last
);
    reg [11:0] word;
    reg [13:0] pixel, row;
    reg [31:0] row_address, pixel_address;

    wire last_word = word + 1'b1 == words;
    wire last_pixel = pixel + 1'b1 == pixels;
    wire [31:0] next_row = row_address + {8'd0, row_words};

    assign address = pixel_address + {20'd0, word};
    assign last = last_word && last_pixel && row + 1'b1 == rows;

    always @(posedge clk) begin
        if (start) begin
            {word, pixel, row} <= 0;
            row_address <= first;
            pixel_address <= first;
        end else if (advance) begin
            word <= last_word ? 12'd0 : word + 1'b1;
            if (last_word) begin
                pixel <= last_pixel ? 14'd0 : pixel + 1'b1;
                pixel_address <= last_pixel ? next_row : pixel_address + {16'd0, pixel_words};
                if (last_pixel) begin
                    row <= row + 1'b1;
                    row_address <= next_row;
                end
            end
        end
    end
endmodule
