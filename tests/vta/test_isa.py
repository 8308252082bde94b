"""Instructions: bits, text and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_bitenc.vta import isa


@st.composite
def instructions(draw):
    kind = draw(st.sampled_from(list(isa.INSTRUCTIONS.values())))
    values = {name: draw(st.integers(0, 2**width - 1)) for name, _, width in isa.layout(kind)}
    return kind(**values)


@given(instructions())
def test_bits_and_text_are_read_back(instruction):
    assert isa.decode(isa.encode(instruction)) == instruction
    assert isa.assemble(isa.disassemble([instruction])) == [instruction]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=4, max_size=4))
def test_random_words_are_an_instruction_or_refused(words):
    try:
        instruction = isa.decode(words)
    except isa.InstructionError:
        return
    assert np.array_equal(isa.encode(instruction), np.array(words, np.uint64))


def test_every_instruction_fits():
    for kind in isa.INSTRUCTIONS.values():
        *_, (_, low, width) = isa.layout(kind)
        assert low + width <= 256


def test_fields_that_do_not_hold_their_value_are_refused():
    with pytest.raises(isa.InstructionError, match=r"conv.stride_x: 16 doesn't fit 4 bits"):
        isa.encode(isa.Conv(stride_x=16))
    with pytest.raises(isa.InstructionError, match="no opcode 0"):
        isa.decode([0, 0, 0, 0])
    words = isa.encode(isa.Wait())
    words[3] = 1
    with pytest.raises(isa.InstructionError, match="behind its last field"):
        isa.decode(words)


@pytest.mark.parametrize(
    "text", ["jump", "load rows", "load rows=-1", "wait rows=1", "store dram=x"]
)
def test_text_that_cannot_be_read(text):
    with pytest.raises(isa.InstructionError, match="line 2"):
        isa.assemble(f"finish # the end\n{text}")


def test_text():
    load = isa.Load(buffer=1, rows=3, pop_next=1)
    assert isa.disassemble([load, isa.Finish()]) == "load pop_next=1 buffer=weight rows=3\nfinish\n"


@given(st.integers(-(2**19), 2**19 - 1), st.integers(-(2**13), 2**13 - 1))
def test_table_lines_are_read_back(offset, dy):
    word = isa.encode_line(dict(offset=offset, dy=dy, dx=-1), isa.TAP_FIELDS)
    line = isa.decode_lines(np.array([word], np.uint64), isa.TAP_FIELDS)
    assert {name: int(value[0]) for name, value in line.items()} == dict(
        offset=offset, dy=dy, dx=-1
    )
    with pytest.raises(isa.InstructionError):
        isa.encode_line(dict(offset=0, dy=0, dx=2**13), isa.TAP_FIELDS)


def test_header_names_every_field():
    header = isa.verilog_header()
    assert "`define OP_CONV 4'd3" in header
    assert f"`define CONV_POP_PREV {isa.layout(isa.Conv)[0][1]}:4" in header
