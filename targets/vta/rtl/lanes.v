// Output pixels of the tile to come: one lane a cycle, while the tile before it computes.
//
// Lane j holds an output pixel: where its window starts in the input, its index in the act buffer,
// and the row of its border constants.
`include "isa.vh"

module lanes #(
    parameter DN = 8,
    parameter PARAM_ROWS = 1024
) (
    input  wire                             clk,
    input  wire                             reset,
    input  wire                             start,
    input  wire [255:0]                     x,
    input  wire                             take,
    output reg                              ready,
    output wire                             exhausted,
    output reg  [DN-1:0]                    valid,
    output reg  [DN*28-1:0]                 base,
    output reg  [DN*24-1:0]                 y,
    output reg  [DN*24-1:0]                 column,
    output reg  [DN*$clog2(PARAM_ROWS)-1:0] border,
    output wire                             buffer_range
);
    localparam ROW_BITS = $clog2(PARAM_ROWS);
    localparam LANE_BITS = $clog2(DN);
    localparam [LANE_BITS-1:0] LAST_LANE = {LANE_BITS{1'b1}};

    reg busy;
    reg [LANE_BITS-1:0] lane;
    reg [15:0] left;
    reg [11:0] out_column;
    reg [17:0] out_row;
    reg [27:0] row_base;
    reg [23:0] input_y, input_x;

    wire [11:0] out_width = {1'b0, x[`CONV_OUT_WIDTH]};
    wire [11:0] row_high = {1'b0, x[`CONV_ROW_HIGH]};
    wire [11:0] column_high = {1'b0, x[`CONV_COLUMN_HIGH]};
    wire [31:0] row_class = (out_row < {12'd0, x[`CONV_ROW_LOW]} ? {14'd0, out_row}
        : {26'd0, x[`CONV_ROW_LOW]})
        + (out_row < {6'd0, row_high} ? 32'd0 : {14'd0, out_row} - {20'd0, row_high} + 32'd1);
    wire [31:0] column_class = (out_column < {6'd0, x[`CONV_COLUMN_LOW]} ? {20'd0, out_column}
        : {26'd0, x[`CONV_COLUMN_LOW]})
        + (out_column < column_high ? 32'd0 : {20'd0, out_column} - {20'd0, column_high} + 32'd1);
    wire [31:0] classes = {26'd0, x[`CONV_COLUMN_LOW]} + 32'd1 + {20'd0, out_width}
        - {20'd0, column_high};
    wire [31:0] border_row = {18'd0, x[`CONV_PARAM]} + 32'd2 + row_class * classes + column_class;
    wire ends_row = out_column + 1'b1 == out_width;

    assign exhausted = !busy && !ready;
    assign buffer_range = busy && left != 0 && border_row >= PARAM_ROWS;

    always @(posedge clk) begin
        if (reset) begin
            busy <= 0;
            ready <= 0;
        end else if (start) begin
            busy <= 1;
            ready <= 0;
            lane <= 0;
        end else begin
            if (busy) begin
                lane <= lane + 1'b1;
                if (lane == LAST_LANE) begin
                    busy <= 0;
                    ready <= 1;
                end
            end
            if (take) begin
                ready <= 0;
                busy <= left != 0;
            end
        end
        if (start) begin
            left <= {2'd0, x[`CONV_PIXELS]};
            out_column <= 0;
            out_row <= {7'd0, x[`CONV_FIRST_ROW]};
            row_base <= 0;
            input_y <= {13'd0, x[`CONV_FIRST_ROW]} * {20'd0, x[`CONV_STRIDE_Y]};
            input_x <= 0;
        end else if (busy) begin
            valid[lane] <= left != 0;
            base[lane*28 +: 28] <= row_base + {16'd0, out_column};
            y[lane*24 +: 24] <= input_y;
            column[lane*24 +: 24] <= input_x;
            border[lane*ROW_BITS +: ROW_BITS] <= border_row[ROW_BITS-1:0];
            if (left != 0) left <= left - 1'b1;
            out_column <= ends_row ? 12'd0 : out_column + 1'b1;
            input_x <= ends_row ? 24'd0 : input_x + {20'd0, x[`CONV_STRIDE_X]};
            if (ends_row) begin
                out_row <= out_row + 1'b1;
                row_base <= row_base + {14'd0, x[`CONV_ROW_PIXELS]};
                input_y <= input_y + {20'd0, x[`CONV_STRIDE_Y]};
            end
        end
    end
endmodule
