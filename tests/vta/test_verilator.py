"""The Verilog under Verilator against encoding.py and the functional simulator."""

from dataclasses import replace

import numpy as np
import pytest

from tests.vta.cases import needs_verilator
from tvm_bitenc.accelerator import Accelerator, load_accelerator
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.vta import isa
from tvm_bitenc.vta.compile_layer import compile_conv, output_of
from tvm_bitenc.vta.cost import cycles
from tvm_bitenc.vta.functional import MODULES, AcceleratorError, FunctionalSimulator
from tvm_bitenc.vta.verilator import ERRORS, VerilatorSimulator

pytestmark = needs_verilator

ACCELERATOR = load_accelerator()


@pytest.fixture(scope="module")
def check(conv_layer, expected, planes):
    def check(layer, out_bits=0, accelerator=ACCELERATOR):
        static = conv_layer(layer, out_bits)
        program = compile_conv(static, accelerator)
        memory = program.image(planes(layer))
        run = VerilatorSimulator(accelerator, memory).run_words(len(program.instructions))
        words = memory[program.output_address :]
        assert np.array_equal(output_of(static, program, words), expected(layer, static))
        return program, run

    return check


WINDOWS = [
    dict(padding=1),
    dict(padding=(2, 0, 1, 3), stride=(2, 1), kernel=(3, 2)),
    dict(padding=2, dilation=(1, 2), stride=2),
    dict(padding=4, size=(1, 2)),
    dict(kernel=1, size=(9, 11), stride=3),
    dict(kernel=7, padding=3, stride=2, size=(17, 19), batch=2),
]


@pytest.mark.parametrize("out_bits", [0, 3])
@pytest.mark.parametrize("kind", ["symmetric", "unsigned", "signed"])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_windows(window, kind, out_bits, random_layer, kinds, check):
    encodings = Encoding.symmetric(2), kinds[kind](2)
    check(random_layer(0, *encodings, channels=70, out_channels=13, **window), out_bits)
    check(random_layer(0, *reversed(encodings), channels=5, out_channels=70, **window), out_bits)


@pytest.mark.parametrize("weight_bits", range(1, 9))
@pytest.mark.parametrize("act_bits", range(1, 9))
def test_bits(weight_bits, act_bits, random_layer, check):
    encodings = Encoding.signed(weight_bits), Encoding.unsigned(act_bits)
    layer = random_layer(1, *encodings, channels=9, padding=1)
    check(layer)
    check(layer, out_bits=act_bits)


@pytest.mark.slow  # Verilator builds another machine.
def test_many_bands_and_words(random_layer, check):
    small = Accelerator(act_rows=128, weight_rows=128, param_rows=256, out_rows=256)
    encodings = Encoding.signed(2), Encoding.unsigned(2)
    options = dict(channels=70, out_channels=200, batch=2, size=(15, 9), padding=1)
    check(random_layer(3, *encodings, **options), 2, small)


@pytest.mark.slow  # Verilator builds another machine.
def test_other_array_sizes(random_layer, check):
    accelerator = Accelerator(channels=16, pixels=4)
    encodings = Encoding.signed(2), Encoding.unsigned(2)
    for out_bits in (0, 2):
        layer = random_layer(3, *encodings, channels=70, out_channels=40, padding=1)
        check(layer, out_bits, accelerator)


@pytest.mark.sweep(4)
@pytest.mark.parametrize("latency", [16, 100])
@pytest.mark.parametrize(
    "bits, channels, size, least",
    [(2, 64, 56, 0.95), (2, 128, 28, 0.95), (2, 256, 14, 0.94), (2, 512, 7, 0.84),
     (1, 64, 56, 0.87), (1, 128, 28, 0.89), (1, 256, 14, 0.90), (1, 512, 7, 0.63)],
)  # fmt: skip
def test_utilization_and_cycle_model(bits, channels, size, least, latency, random_layer, check):
    """ResNet-18's 3x3 layers; of one bit, the memory brings the weights of the last too slowly."""
    accelerator = replace(ACCELERATOR, latency=latency)
    encodings = Encoding.signed(bits), Encoding.unsigned(bits)
    options = dict(channels=channels, out_channels=channels, size=(size, size), padding=1)
    program, run = check(random_layer(0, *encodings, **options), bits, accelerator)
    least -= 0.01 * (latency > 16)  # To fill the buffers at the start takes longer.
    assert run.utilization(program.macs, accelerator) >= least
    assert abs(cycles(program.instructions, accelerator) / run.cycles - 1) < 0.05


def _error_of(memory: np.ndarray, count: int, max_cycles: int, accelerator=ACCELERATOR) -> str:
    try:
        VerilatorSimulator(accelerator, memory).run_words(count, max_cycles)
    except AcceleratorError as error:
        return error.cause
    return ""


CONV = dict(
    passes=1, taps=1, pixels=1, out_width=1, stride_y=1, stride_x=1, row_pixels=1,
    row_high=1, column_high=1,
)  # fmt: skip
INSIDE = dict(in_height=1, in_width=1)
PASS = isa.Load(buffer=4, dram=63, rows=1, pixels=1, words=1, push_next=1)
WRONG = [
    (2, isa.Load(dram=60, rows=1, pixels=1, words=50, push_next=1)),
    (3, isa.Load(sram=1023, rows=1, pixels=9, pixel_words=1, words=1, push_next=1)),
    (3, isa.Load(buffer=1, sram=2047, rows=1, pixels=1, words=9, push_next=1)),
    (1, isa.Load(buffer=6, rows=1, pixels=1, words=1, push_next=1)),
    (1, isa.Load(push_prev=1, push_next=1)),
    (5, isa.Load(pop_next=1, push_next=1)),
    (6, isa.Load(pop_next=0, push_next=0, rows=1, pixels=1, words=1)),
    (1, isa.Conv(**{**CONV, "taps": 0})),
    (1, isa.Conv(**{**CONV, "row_pixels": 2})),
    (3, isa.Conv(**CONV, **INSIDE, weight=2048)),
    (3, isa.Conv(**CONV, **INSIDE, act=1024)),
    (3, isa.Conv(**CONV, **INSIDE, param=1023)),
    (3, isa.Conv(**CONV, **INSIDE, out=4096)),
    (1, isa.Conv(**CONV, bits=1, narrow=1)),
    (1, isa.Setup(copies=0)),
    (1, isa.Setup(copies=17)),
    (1, isa.Setup(copies=1, copy_parts=9)),
    (5, isa.Wait(pop_next=1)),
]


@pytest.mark.parametrize("code, wrong", WRONG, ids=lambda value: str(getattr(value, "name", value)))
def test_wrong_programs_raise_the_flag(code, wrong, line=isa.ONE_WORD):
    """The functional simulator refuses them too."""
    needs_token = code not in (5, 6) and isinstance(wrong, isa.Load)
    program = [wrong, *([isa.Wait(pop_prev=1)] if needs_token or code == 5 else []), isa.Finish()]
    if code == 6:
        program = [isa.Load(push_next=1), isa.Finish()]
    if isinstance(wrong, isa.Conv):
        program = [PASS, isa.Wait(pop_prev=1), *program]
    memory = np.zeros(64, np.uint64)
    memory[63] = isa.encode_line(dict(act=0, weight=0, shift=0, ones=0, **line), isa.PASS_FIELDS)
    encoded = np.concatenate([isa.encode(x) for x in program])
    memory[: encoded.size] = encoded
    assert _error_of(memory.copy(), len(program), 100_000) == ERRORS[code]
    with pytest.raises(AcceleratorError):
        FunctionalSimulator(ACCELERATOR, memory).run_words(0, len(program))


@pytest.mark.parametrize("kind, words", [(isa.Conv, 0), (isa.Pool, 0), (isa.Pool, 2)])
def test_wrong_passes_raise_the_flag(kind, words):
    program = kind(**CONV, **INSIDE, bits=1)
    test_wrong_programs_raise_the_flag(1, program, isa.ONE_WORD | dict(words=words))


def test_illegal_opcode_raises_the_flag():
    assert _error_of(np.zeros(64, np.uint64), 3, 1000) == ERRORS[1]
    assert _error_of(np.zeros(4, np.uint64), 3, 1000) == ERRORS[1]
    program = np.concatenate([isa.encode(isa.Wait())] * 2)
    assert _error_of(program, 3, 1000) == ERRORS[2]
    assert _error_of(program, 2, 1000) == ERRORS[5]


def _damaged(rng: np.random.Generator, program, image: np.ndarray) -> np.ndarray:
    """Memory with instructions permuted, one field changed, bits flipped, or all of it random."""
    memory, kind = image.copy(), rng.integers(0, 4)
    instructions = memory[: program.constants_address].reshape(-1, isa.INSTRUCTION_WORDS)
    if kind == 0:
        instructions[:] = rng.permutation(instructions)
    elif kind == 1:
        place = rng.integers(len(instructions))
        x = program.instructions[place]
        name, _, width = isa.layout(type(x))[rng.integers(len(isa.layout(type(x))))]
        value = int(rng.integers(0, 1 << width)) >> int(rng.integers(0, width))
        instructions[place] = isa.encode(replace(x, **{name: value}))
    elif kind == 2:
        for bit in rng.integers(0, 64 * program.input_address, rng.integers(1, 4)):
            memory[bit // 64] ^= np.uint64(1 << int(bit % 64))
    else:
        instructions[:] = rng.integers(0, 2**64, instructions.shape, np.uint64)
        opcodes = rng.choice([1, 2, 3, 4, 5, 6, 15], len(instructions)).astype(np.uint64)
        instructions[:, 0] = instructions[:, 0] >> np.uint64(4) << np.uint64(4) | opcodes
        for place, line in enumerate(instructions):  # All but conv leave their highest bits 0.
            end = isa.layout(isa.INSTRUCTIONS[int(opcodes[place])])[-1]
            number = sum(int(w) << 64 * i for i, w in enumerate(line)) % (1 << end[1] + end[2])
            line[:] = [number >> 64 * i & 2**64 - 1 for i in range(4)]
    return memory


MACHINES = [
    (ACCELERATOR, 1000),
    (Accelerator(8, 4, depth=32), 200),
    (Accelerator(1, 2, depth=256), 200),
]


@pytest.mark.slow
@pytest.mark.parametrize("accelerator, streams", MACHINES, ids=["8x64x8", "8x32x4", "1x256x2"])
def test_damaged_streams_never_hang_and_are_explained(
    accelerator, streams, random_layer, conv_layer, planes
):
    """Streams end, or raise the flag, or go on working.

    What is flagged the functional simulator explains, in one order of the modules at least: without
    a token, finish may come early or late. What isn't flagged, and doesn't depend on the order, has
    the same result.
    """
    layer = random_layer(0, Encoding.signed(2), Encoding.unsigned(2), out_channels=24, padding=1)
    program = compile_conv(conv_layer(layer, 2), accelerator)
    image, rng, causes = program.image(planes(layer)), np.random.default_rng(0), set()
    count, compared = len(program.instructions), 0
    for _ in range(streams):
        memory = _damaged(rng, program, image)
        orders = MODULES, MODULES[::-1], ("compute", "store", "load")
        results = [_functional(memory.copy(), count, order, accelerator) for order in orders]
        cause = _error_of(memory, count, 20_000, accelerator)
        causes.add(cause)
        if cause not in ("", ERRORS[-1]):
            assert any(result is None for result in results)
        elif not cause and _are_equal(results):
            assert np.array_equal(memory, results[0])
            compared += 1
    assert ERRORS[-2] not in causes
    assert causes >= {ERRORS[code] for code in (1, 2, 3, 5, 6)} and compared > streams / 10


def _are_equal(results: list) -> bool:
    first, *rest = results
    return first is not None and all(x is not None and np.array_equal(x, first) for x in rest)


def _functional(memory: np.ndarray, count: int, order, accelerator) -> np.ndarray | None:
    """Memory behind a run, None if it is refused."""
    try:
        FunctionalSimulator(accelerator, memory).run_words(0, count, order)
    except AcceleratorError:
        return None
    return memory
