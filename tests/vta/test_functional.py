"""What the functional simulator says of wrong programs."""

from dataclasses import replace

import numpy as np
import pytest

from tvm_bitenc.accelerator import Accelerator
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.vta import isa
from tvm_bitenc.vta.compile_layer import compile_conv
from tvm_bitenc.vta.functional import AcceleratorError, FunctionalSimulator

ACCELERATOR = Accelerator()
CONV = dict(
    passes=1, taps=1, words=1, pixels=1, out_width=1, stride_y=1, stride_x=1, row_pixels=1,
    row_high=1, column_high=1,
)  # fmt: skip


def run(*program):
    FunctionalSimulator(ACCELERATOR, np.zeros(64, np.uint64)).run(
        [*program, isa.Finish()], order=("load", "store", "compute")
    )


WRONG = {
    "reaches memory 64": isa.Load(dram=60, rows=1, pixels=1, words=5),
    "reaches act 1024, of 1024": isa.Load(
        sram=1023, rows=1, pixels=9, pixel_words=1, words=1, first_pixel=0
    ),
    "reaches weight 16384": isa.Load(buffer=1, sram=2047, rows=1, pixels=1, words=9),
    "can't load into buffer 6": isa.Load(buffer=6, rows=1, pixels=1, words=1),
    "can't load into buffer 7": isa.Load(buffer=7),
    "reaches out 4096": isa.Store(sram=4095, rows=2, words=1),
    "taps, pixels is 0": isa.Conv(**{**CONV, "taps": 0, "pixels": 0}),
    "row_pixels 2 isn't out_width 1": isa.Conv(**{**CONV, "row_pixels": 2}),
    "9 bits": isa.Conv(**CONV, bits=9),
    "reaches tap table 510": isa.Conv(**{**CONV, "taps": 511}),
    "reaches weight 2048": isa.Conv(**CONV, weight=2048, in_height=1, in_width=1),
    "reaches act 1024": isa.Conv(**CONV, act=1024, in_height=1, in_width=1),
    "reaches param": isa.Conv(**CONV, param=1023, in_height=1, in_width=1),
    "part 32": isa.Conv(**CONV, bits=1, narrow=1),
    "store has no module for push_next": isa.Store(push_next=1),
    "load has no module for push_prev": isa.Load(push_prev=1),
}


@pytest.mark.parametrize("cause", WRONG)
def test_what_the_hardware_flags_is_explained(cause):
    with pytest.raises(AcceleratorError, match=cause):
        run(WRONG[cause])


def test_deadlock_names_who_waits_for_whom():
    with pytest.raises(AcceleratorError) as caught:
        run(isa.Load(pop_next=1), isa.Conv(**CONV, pop_prev=1, pop_next=1))
    assert "load at instruction 0 (load) waits for a token compute to load" in str(caught.value)
    assert "compute at instruction 1 (conv) waits for a token load to compute and store" in str(
        caught.value
    )


def test_end_of_a_program():
    simulator = FunctionalSimulator(ACCELERATOR, np.zeros(8, np.uint64))
    with pytest.raises(AcceleratorError, match="ends without finish"):
        simulator.run([isa.Load()])
    with pytest.raises(AcceleratorError, match="finish leaves 1 tokens load to compute"):
        run(isa.Load(push_next=1), isa.Wait(pop_prev=1), isa.Load(push_next=1), isa.Wait())
    with pytest.raises(AcceleratorError, match="no opcode 0"):
        simulator.run_words(0, 2)
    with pytest.raises(AcceleratorError, match="outside the memory"):
        simulator.run_words(0, 3)


@pytest.mark.parametrize("flag", ["pop_prev", "pop_next", "push_prev", "push_next"])
def test_every_token_of_a_program_counts(flag, random_layer, conv_layer, planes):
    """Without any one of them it is a deadlock or leaves a token, or it is a race."""
    layer = random_layer(0, Encoding.signed(1), Encoding.unsigned(1), out_channels=256, padding=1)
    program = compile_conv(conv_layer(layer, 1), ACCELERATOR)
    places = [i for i, x in enumerate(program.instructions) if getattr(x, flag)]
    for place in places:
        wrong = list(program.instructions)
        wrong[place] = replace(wrong[place], **{flag: 0})
        memory = program.image(planes(layer))
        with pytest.raises(AcceleratorError, match=r"deadlock|finish leaves"):
            FunctionalSimulator(ACCELERATOR, memory).run(wrong)
