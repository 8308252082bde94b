"""Pool and residual instructions, written by hand, on both simulators."""

import shutil

import numpy as np
import pytest

from tvm_bitenc.accelerator import BUFFERS, Accelerator
from tvm_bitenc.encoding import pack
from tvm_bitenc.vta import isa
from tvm_bitenc.vta.cost import cycles
from tvm_bitenc.vta.functional import FunctionalSimulator
from tvm_bitenc.vta.verilator import VerilatorSimulator

ACCELERATOR = Accelerator()
PASS = dict(act=0, weight=0, shift=0, ones=0, **isa.ONE_WORD)


class Memory:
    """Words that instructions load, one behind the other."""

    def __init__(self, is_verilog: bool, size: int = 1 << 16):
        self.is_verilog = is_verilog
        self.words, self.end, self.program = np.zeros(size, np.uint64), 1024, []

    def load(self, buffer: str, values: np.ndarray, **fields: int) -> None:
        """Load an array as it is, or with other loops over it."""
        words = np.ascontiguousarray(values).reshape(-1).view(np.uint64)
        self.words[self.end : self.end + words.size] = words
        loops = dict(rows=1, pixels=1, words=words.size) | fields
        self.program.append(isa.Load(buffer=BUFFERS.index(buffer), dram=self.end, **loops))
        self.end += words.size

    def table(self, buffer: str, lines: list[dict[str, int]]) -> None:
        """Load a tap or pass table."""
        fields = isa.TAP_FIELDS if buffer == "tap" else isa.PASS_FIELDS
        self.load(buffer, np.array([isa.encode_line(line, fields) for line in lines], np.uint64))

    def run(self, instruction: isa.Conv, rows: int) -> np.ndarray:
        """Compute once, and store so many rows of the out buffer."""
        *loads, last = self.program
        program = [
            *loads,
            isa.Load(**(vars(last) | dict(push_next=1))),
            isa.Setup(copies=1, words=instruction.passes),
            type(instruction)(**(vars(instruction) | dict(pop_prev=1, push_next=1))),
            isa.Store(pop_prev=1, push_prev=1, dram=self.end, rows=1, words=rows),
            isa.Finish(pop_next=1),
        ]
        self.execute(program)
        return self.words[self.end : self.end + rows]

    def execute(self, program: list[isa.Instruction]) -> None:
        """Run it on either simulator."""
        for i, instruction in enumerate(program):
            self.words[4 * i : 4 * i + 4] = isa.encode(instruction)
        if self.is_verilog:
            run = VerilatorSimulator(ACCELERATOR, self.words).run_words(len(program))
            assert abs(cycles(program, ACCELERATOR) / run.cycles - 1) < 0.05
        else:
            FunctionalSimulator(ACCELERATOR, self.words).run_words(0, len(program))


def row_pixels(width: int, out_width: int) -> int:
    return width + (out_width - width) % ACCELERATOR.pixels


@pytest.fixture(scope="session", params=["functional", "verilog"])
def memory(request):
    if request.param == "verilog" and not shutil.which("verilator"):
        pytest.skip("install verilator and g++")
    return lambda: Memory(request.param == "verilog")


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_max_pool(memory, bits, stride):
    """3x3 windows, padding 1; with stride 2 rows and columns of both remainders."""
    rng, (height, width), channels = np.random.default_rng(bits), (9, 11), 64
    codes = rng.integers(0, 2**bits, (1, height, width, channels)).astype(np.uint8)
    padded = np.pad(codes[0], [(1, 1), (1, 1), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
    largest = windows.max(axis=(-2, -1))[::stride, ::stride]
    out_height, out_width, _ = largest.shape

    machine, planes = memory(), pack(codes, bits)
    # Phases of a stride lie one behind the other, each like an image of stride 1.
    pixels = row_pixels(-(-width // stride), out_width)
    phase_rows = -(-height // stride) + 1
    word_rows = -(-(stride**2 * phase_rows * pixels) // ACCELERATOR.pixels)
    for row in range(stride):
        for column in range(stride):
            part = planes[0, row::stride, column::stride]
            start = (row * stride + column) * phase_rows * pixels
            machine.load(
                "act", part, rows=len(part), row_words=part[0].size, pixels=part.shape[1],
                pixel_words=bits, words=bits, first_pixel=start + pixels, row_pixels=pixels,
                word_rows=word_rows,
            )  # fmt: skip
    taps = []
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            phase = dy % stride * stride + dx % stride
            row = dy // stride + 1 + phase * phase_rows
            taps.append(dict(offset=row * pixels + dx // stride, dy=dy, dx=dx))
    machine.table("tap", taps)
    lines = [{**PASS, "act": k * word_rows} for k in reversed(range(bits))]
    machine.table("pass", lines)
    for part in range(64 // ACCELERATOR.channels):
        instruction = isa.Pool(
            passes=bits, taps=9, pixels=out_height * out_width, out_width=out_width,
            in_height=height, in_width=width, stride_y=stride, stride_x=stride, row_pixels=pixels,
            word_rows=word_rows, bits=bits, sub_word=part,
        )  # fmt: skip
        found = machine.run(instruction, largest.shape[0] * largest.shape[1] * bits)
        channel = slice(part * ACCELERATOR.channels, (part + 1) * ACCELERATOR.channels)
        expected = np.zeros_like(largest, np.uint8)
        expected[..., channel] = largest[..., channel]
        assert np.array_equal(found, pack(expected, bits).reshape(-1))


@pytest.mark.parametrize("bits, residual_bits", [(1, 1), (2, 2), (3, 1), (1, 4), (4, 4), (8, 0)])
def test_residual(memory, bits, residual_bits):
    """Every code of the residual has thresholds of its own: any function of both."""
    rng, pixels, part = np.random.default_rng(bits), 21, 3
    channels = slice(part * ACCELERATOR.channels, (part + 1) * ACCELERATOR.channels)
    codes = rng.integers(0, 2, (1, 1, pixels, 64)).astype(np.uint8)
    weight = rng.integers(0, 2, (ACCELERATOR.channels, 64)).astype(np.uint8)
    residual = rng.integers(0, 2**residual_bits, (1, 1, pixels, 64)).astype(np.uint8)
    table = rng.integers(-70, 70, (2**bits - 1, 2**residual_bits, ACCELERATOR.channels))
    table = np.sort(table, axis=0).astype(np.int32)
    acc = ((2 * codes[0, 0].astype(int) - 1) @ (2 * weight.astype(int) - 1).T).astype(np.int32)
    thresholds = table[:, residual[0, 0, :, channels], np.arange(ACCELERATOR.channels)]
    expected = np.zeros((pixels, 64), np.uint8)
    expected[:, channels] = (acc >= thresholds).sum(axis=0)

    machine = memory()
    machine.load(
        "act", pack(codes, 1), rows=1, pixels=pixels, pixel_words=1, words=1,
        row_pixels=row_pixels(pixels, pixels),
    )  # fmt: skip
    machine.load("weight", pack(weight, 1))
    code, of = isa.threshold_rows(bits, residual_bits)
    # acc = 64 - 2 differing; the factor of the ones is 0.
    constants = np.zeros((3, ACCELERATOR.channels), np.int32)
    constants[2] = 64
    machine.load("param", np.concatenate([constants, table[code - 1, of]]))
    if residual_bits:
        machine.load("residual", pack(residual, residual_bits))
    machine.table("tap", [dict(offset=0, dy=0, dx=0)])
    machine.table("pass", [PASS])
    instruction = isa.Conv(
        passes=1, taps=1, pixels=pixels, out_width=pixels, in_height=1, in_width=pixels,
        stride_y=1, stride_x=1, row_pixels=row_pixels(pixels, pixels), row_high=1,
        column_high=pixels, thresholds=3, bits=bits, residual_bits=residual_bits, sub_word=part,
    )  # fmt: skip
    found = machine.run(instruction, pixels * bits)
    assert np.array_equal(found, pack(expected[None, None], bits).reshape(-1))


@pytest.mark.parametrize("narrow", [0, 1])
def test_accumulators(memory, narrow):
    """A step per tile, so that tiles wait for words to be written."""
    rng, pixels = np.random.default_rng(narrow), 45
    codes = rng.integers(0, 2, (1, 1, pixels, 64)).astype(np.uint8)
    weight = rng.integers(0, 2, (ACCELERATOR.channels, 64)).astype(np.uint8)
    constants = np.zeros((3, ACCELERATOR.channels), np.int32)
    constants[2] = rng.integers(-(2**15) + 99, 2**15 - 99, ACCELERATOR.channels) << (
        0 if narrow else 9
    )
    differing = (codes[0, 0, :, None] != weight).sum(axis=-1)
    expected = (constants[2] - 2 * differing).astype(np.int16 if narrow else np.int32)

    machine, width = memory(), row_pixels(pixels, pixels)
    machine.load("act", pack(codes, 1), rows=1, pixels=pixels, pixel_words=1, words=1,
                 row_pixels=width)  # fmt: skip
    machine.load("weight", pack(weight, 1))
    machine.load("param", constants)
    machine.table("tap", [dict(offset=0, dy=0, dx=0)])
    machine.table("pass", [PASS])
    instruction = isa.Conv(
        passes=1, taps=1, pixels=pixels, out_width=pixels, in_height=1, in_width=pixels,
        stride_y=1, stride_x=1, row_pixels=width, row_high=1, column_high=pixels, narrow=narrow,
    )  # fmt: skip
    found = machine.run(instruction, expected.nbytes // 8)
    assert np.array_equal(found.view(expected.dtype).reshape(expected.shape), expected)
