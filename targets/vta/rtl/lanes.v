// Output pixels of the tile to come: one lane a cycle, while the tile before it computes.
//
// A lane holds an output pixel: where its window starts in the input, its index in the act buffer,
// and the row of its border constants. Lanes come in at the top and move down.
`include "isa.vh"

module lanes #(
    parameter DN = 8,
    parameter ACT_ROWS = 1024,
    parameter PARAM_ROWS = 1024
) (
    input  wire                                clk,
    input  wire                                reset,
    input  wire                                start,
    input  wire                                is_pool,
    input  wire [255:0]                        x,
    input  wire                                take,
    output reg                                 ready,
    output wire                                exhausted,
    output reg  [DN-1:0]                       valid,
    output reg  [DN*$clog2(ACT_ROWS*DN)-1:0]   base,
    output reg  [DN*15-1:0]                    y,
    output reg  [DN*15-1:0]                    column,
    output reg  [DN*$clog2(PARAM_ROWS)-1:0]    border,
    output wire                                buffer_range
);
    localparam ROW_BITS = $clog2(PARAM_ROWS);
    localparam INDEX_BITS = $clog2(ACT_ROWS * DN);
    localparam LANE_BITS = DN > 1 ? $clog2(DN) : 1;
    localparam [LANE_BITS-1:0] LAST_LANE = {LANE_BITS{DN > 1}};

    reg busy;
    reg [LANE_BITS-1:0] lane;
    reg [13:0] left;
    reg [10:0] out_column;
    reg [14:0] out_row;
    reg [28:0] row_base;
    reg [14:0] input_y, input_x;
    reg [25:0] row_border;     // of column class 0
    reg [11:0] column_class;

    wire [10:0] out_width = x[`CONV_OUT_WIDTH];
    wire [10:0] column_high = x[`CONV_COLUMN_HIGH];
    wire [10:0] row_high = x[`CONV_ROW_HIGH];
    wire [10:0] first_row = x[`CONV_FIRST_ROW];
    wire [5:0] row_low = x[`CONV_ROW_LOW], column_low = x[`CONV_COLUMN_LOW];

    // Below `low` and from `high` on, each position has a class of its own; low < high.
    wire [11:0] first_class = (first_row < {5'd0, row_low} ? {1'b0, first_row} : {6'd0, row_low})
        + (first_row < row_high ? 12'd0 : {1'b0, first_row - row_high} + 12'd1);
    wire [11:0] classes = {6'd0, column_low} + 12'd1 + {1'b0, out_width - column_high};
    wire next_row_class = out_row < {9'd0, row_low} || out_row + 15'd1 >= {4'd0, row_high};
    wire next_column_class = out_column < {5'd0, column_low}
        || {1'b0, out_column} + 12'd1 >= {1'b0, column_high};
    wire [25:0] border_row = row_border + {14'd0, column_class};
    wire [28:0] index = row_base + {18'd0, out_column};
    wire ends_row = out_column + 11'd1 == out_width;

    // The lanes with one more at the top.
    wire [DN:0] next_valid = {left != 0, valid};
    wire [(DN+1)*INDEX_BITS-1:0] next_base = {index[INDEX_BITS-1:0], base};
    wire [(DN+1)*15-1:0] next_y = {input_y, y}, next_column = {input_x, column};
    wire [(DN+1)*ROW_BITS-1:0] next_border = {border_row[ROW_BITS-1:0], border};

    assign exhausted = !busy && !ready;
    assign buffer_range = busy && left != 0 && ((!is_pool && {6'd0, border_row} >= PARAM_ROWS)
        || {3'd0, index} >= ACT_ROWS * DN);

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
                lane <= lane == LAST_LANE ? {LANE_BITS{1'b0}} : lane + 1'b1;
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
            left <= x[`CONV_PIXELS];
            out_column <= 0;
            out_row <= {4'd0, first_row};
            row_base <= 0;
            input_y <= {4'd0, first_row} * {11'd0, x[`CONV_STRIDE_Y]};
            input_x <= 0;
            row_border <= {12'd0, x[`CONV_PARAM]} + 26'd2
                + {2'd0, {12'd0, first_class} * {12'd0, classes}};
            column_class <= 0;
        end else if (busy) begin
            valid <= next_valid[DN:1];
            base <= next_base[(DN+1)*INDEX_BITS-1:INDEX_BITS];
            y <= next_y[(DN+1)*15-1:15];
            column <= next_column[(DN+1)*15-1:15];
            border <= next_border[(DN+1)*ROW_BITS-1:ROW_BITS];
            if (left != 0) left <= left - 1'b1;
            out_column <= ends_row ? 11'd0 : out_column + 11'd1;
            input_x <= ends_row ? 15'd0 : input_x + {11'd0, x[`CONV_STRIDE_X]};
            if (ends_row) column_class <= 0;
            else if (next_column_class) column_class <= column_class + 12'd1;
            if (ends_row) begin
                out_row <= out_row + 15'd1;
                row_base <= row_base + {15'd0, x[`CONV_ROW_PIXELS]};
                input_y <= input_y + {11'd0, x[`CONV_STRIDE_Y]};
                if (next_row_class) row_border <= row_border + {14'd0, classes};
            end
        end
    end
endmodule
