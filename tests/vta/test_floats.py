"""Float arithmetic behind accumulators: numbers, codes of them, and both, on both simulators."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tvm_bitenc as be
from tests.models import randomised
from tests.vta.cases import both, needs_verilator, run
from tests.vta.test_verilator import _damaged
from tvm_bitenc.accelerator import BUFFERS, Accelerator
from tvm_bitenc.data import data_folder
from tvm_bitenc.encoding import Encoding, pack
from tvm_bitenc.errors import TargetError, UnsupportedError
from tvm_bitenc.layer import RESIDUAL, FloatStep
from tvm_bitenc.nn import QConv2d, ResNet18
from tvm_bitenc.op.multiply_add import fused_multiply_add
from tvm_bitenc.vta import floats, isa
from tvm_bitenc.vta.compile_layer import compile_conv, output_of
from tvm_bitenc.vta.cost import cycles
from tvm_bitenc.vta.functional import MODULES, AcceleratorError, FunctionalSimulator
from tvm_bitenc.vta.isa import PASS_FIELDS as PASS
from tvm_bitenc.vta.verilator import ERRORS, VerilatorSimulator

ACCELERATOR = Accelerator(float_units=1)
STEPS = {
    "scaled": ["multiply"],
    "zeros": ["multiply", "maximum"],
    "linear": ["multiply", "add"],
    "normalized": ["multiply", "multiply_add"],
    "residual": ["multiply", "multiply_add", RESIDUAL],
    "relu": ["multiply", "multiply_add", RESIDUAL, "maximum"],
    "limited": ["multiply_add", "clip"],
    "added": [RESIDUAL, "maximum", "minimum"],
    "none": [],
}
FUNCTIONS = {
    "astype": lambda x: x.astype(np.float32),
    "multiply": np.multiply,
    "add": np.add,
    "multiply_add": fused_multiply_add,
    # As compiled kernels choose: a limit takes the place of what is beyond it.
    "maximum": lambda x, low: np.where(low > x, low, x),
    "minimum": lambda x, high: np.where(high < x, high, x),
    "clip": lambda x, low, high: FUNCTIONS["minimum"](FUNCTIONS["maximum"](x, low), high),
}


def float_steps(names, channels, seed=0):
    """Steps with constants of each channel, some 0."""
    rng, steps = np.random.default_rng(seed), [FloatStep("astype")]
    for name in names:
        if name in ("maximum", "minimum", "clip"):
            low, high = np.float32(0), rng.uniform(1, 3, channels)
            constants = dict(maximum=(low * high,), minimum=(high,), clip=(low * high, high))[name]
        else:
            count = {"multiply": 1, "add": 1, "multiply_add": 2, RESIDUAL: 0}[name]
            constants = rng.normal(0, 0.1 if name == "multiply" else 2, (count, channels))
            constants[:, ::5] = 0
        steps.append(FloatStep(name, tuple(np.asarray(x, np.float32) for x in constants)))
    return tuple(steps)


def reference(steps, acc, residual):
    """The graph's own operations, one after another."""
    with np.errstate(all="ignore"):
        for step in steps:
            if step.name == RESIDUAL:
                acc = acc + residual
            else:
                acc = FUNCTIONS[step.name](acc, *step.constants)
    return acc


def same_bits(found, wanted):
    is_equal = found.view(np.int32) == np.asarray(wanted, np.float32).view(np.int32)
    return bool(np.all(is_equal | np.isnan(found) & np.isnan(wanted)))


@pytest.fixture(scope="module")
def check(conv_layer, planes):
    """Numbers of a layer, codes of these, and both are those of the reference."""

    def check(layer, names, bits, accelerator=ACCELERATOR, verilog=False, residual=None):
        static = conv_layer(layer)
        static = replace(static, steps=float_steps(names, static.out_channels))
        acc = layer.accumulators().transpose(0, 2, 3, 1)
        if residual is None:
            residual = np.random.default_rng(3).normal(0, 3, acc.shape).astype(np.float32)
        wanted = reference(static.steps, acc, residual).astype(np.float32)
        fraction = np.linspace(0, 1, 2**bits + 1)[1:-1]
        levels = np.quantile(wanted[np.isfinite(wanted)], fraction).astype(np.float32)
        codes = pack((wanted[..., None] >= levels).sum(-1).astype(np.uint8), bits)
        for thresholds, writes_floats in ((None, True), (levels, False), (levels, True)):
            program = compile_conv(static, accelerator, None, thresholds, writes_floats)
            operands = [planes(layer), residual] if RESIDUAL in names else [planes(layer)]
            words = run(program, program.operands(operands), accelerator, verilog)
            if thresholds is not None:
                assert np.array_equal(words[: codes.size].reshape(codes.shape), codes)
            if writes_floats:
                assert same_bits(output_of(static, program, words), wanted)

    return check


@both
@pytest.mark.parametrize("names", STEPS.values(), ids=STEPS.keys())
def test_steps(names, verilog, random_layer, check):
    layer = random_layer(
        0, Encoding.signed(2), Encoding.unsigned(2), channels=9, out_channels=21, size=(7, 9),
        padding=1,
    )  # fmt: skip
    check(layer, names, 2, verilog=verilog)


@both
@pytest.mark.parametrize("bits", [1, 5, 8])
def test_codes_of_any_bits(bits, verilog, random_layer, check):
    """More channels than a word, more images than one, a step per tile."""
    encodings = Encoding.symmetric(1), Encoding.symmetric(1)
    options = dict(kernel=1, channels=64, out_channels=72, size=(4, 5), batch=2)
    check(random_layer(1, *encodings, **options), STEPS["relu"], bits, verilog=verilog)


@both
def test_any_residual(verilog, random_layer, check):
    """All that memory may hold: infinities, NaN, numbers below the normal ones, both zeros."""
    layer = random_layer(
        2, Encoding.signed(1), Encoding.unsigned(1), channels=3, out_channels=16, size=(9, 9)
    )
    rng = np.random.default_rng(0)
    shape = layer.accumulators().transpose(0, 2, 3, 1).shape
    residual = rng.integers(0, 2**32, shape, np.uint32).view(np.float32)
    kinds = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-42, -1e-45, 3e38], np.float32)
    residual = np.where(rng.random(shape) < 0.5, rng.choice(kinds, shape), residual)
    for names in (STEPS["residual"], STEPS["added"]):
        check(layer, names, 3, verilog=verilog, residual=residual)


@needs_verilator
@pytest.mark.slow  # Verilator builds other machines.
@pytest.mark.parametrize(
    "sizes",
    [dict(float_units=2), dict(channels=2, pixels=2, param_rows=2048, float_units=2)],
    ids=str,
)
def test_other_machines(sizes, random_layer, check):
    accelerator = Accelerator(**sizes)
    for bits, names in ((1, "relu"), (3, "normalized"), (8, "residual")):
        layer = random_layer(
            bits, Encoding.signed(2), Encoding.unsigned(1), channels=9, out_channels=21,
            size=(5, 9), padding=1,
        )  # fmt: skip
        check(layer, STEPS[names], bits, accelerator, verilog=True)


ORDERS = MODULES, MODULES[::-1], ("compute", "store", "load")


def is_refused(memory, count, order):
    try:
        FunctionalSimulator(ACCELERATOR, memory).run_words(0, count, order)
    except AcceleratorError:
        return True
    return False


@needs_verilator
@pytest.mark.slow
def test_damaged_streams_never_hang(random_layer, conv_layer, planes):
    """What is flagged the functional simulator refuses, in one order of the modules at least."""
    layer = random_layer(0, Encoding.signed(2), Encoding.unsigned(1), out_channels=24, padding=1)
    static = conv_layer(layer)
    static = replace(static, steps=float_steps(STEPS["relu"], 24))
    program = compile_conv(static, ACCELERATOR, None, np.float32([0, 1, 2]))
    numbers = np.ones((*layer.accumulators().transpose(0, 2, 3, 1).shape,), np.float32)
    words = program.operands([planes(layer), numbers])
    image, rng, causes = program.image(words), np.random.default_rng(0), set()
    count = len(program.instructions)
    for _ in range(300):
        memory = _damaged(rng, program, image)
        try:
            VerilatorSimulator(ACCELERATOR, memory.copy()).run_words(count, 20_000)
        except AcceleratorError as error:
            causes.add(error.cause)
            if error.cause != ERRORS[-1]:
                assert any(is_refused(memory.copy(), count, order) for order in ORDERS)
    assert ERRORS[-2] not in causes and causes >= {ERRORS[code] for code in (1, 2, 3, 5, 6)}


@needs_verilator
def test_cycle_model(random_layer, conv_layer, planes):
    """Tiles of few steps, which wait for numbers, and of many."""
    for channels, bits in ((16, 1), (64, 2)):
        layer = random_layer(
            0, Encoding.signed(bits), Encoding.unsigned(bits), channels=channels, out_channels=64,
            size=(8, 28), padding=1,
        )  # fmt: skip
        static = conv_layer(layer)
        static = replace(static, steps=float_steps(STEPS["normalized"], 64))
        program = compile_conv(static, ACCELERATOR, None, np.float32([-1, 0, 1]), False)
        memory = program.image(planes(layer).reshape(-1))
        ran = VerilatorSimulator(ACCELERATOR, memory).run_words(len(program.instructions))
        assert abs(cycles(program.instructions, ACCELERATOR) / ran.cycles - 1) < 0.05


CONV = dict(
    pop_prev=1, passes=1, taps=1, pixels=1, out_width=1, stride_y=1, stride_x=1, row_pixels=1,
    row_high=1, column_high=1, in_height=1, in_width=1, thresholds=5,
)  # fmt: skip
FLOATS = dict(copies=1, is_float=1, writes_floats=1, pixel_words=4)
RIGHT = (FLOATS, isa.Conv(**CONV, bits=1))
WRONG = [
    (FLOATS | dict(copies=2), isa.Wait(pop_prev=1)),
    (FLOATS, isa.Conv(**CONV, bits=1, residual_bits=1)),
    (FLOATS, isa.Conv(**CONV, narrow=1)),
    (FLOATS, isa.Conv(**CONV | dict(thresholds=4))),
    (FLOATS, isa.Conv(**CONV | dict(thresholds=1025))),
    (FLOATS, isa.Conv(**CONV, out=4093)),
    (FLOATS | dict(float_rows=4096), isa.Conv(**CONV)),
    (FLOATS | dict(adds_residual=1), isa.Conv(**CONV, residual=4093)),
    (FLOATS | dict(writes_floats=0), isa.Conv(**CONV)),
    (FLOATS, isa.Pool(**CONV, bits=1)),
]


@both
@pytest.mark.parametrize("setup, computation", [RIGHT, *WRONG], ids=range(1 + len(WRONG)))
def test_wrong_programs_are_refused(setup, computation, verilog):
    memory = np.zeros(64, np.uint64)
    line = isa.Load(buffer=BUFFERS.index("pass"), dram=63, rows=1, pixels=1, words=1, push_next=1)
    program = [line, isa.Setup(**setup), computation, isa.Finish()]
    words = np.concatenate([isa.encode(x) for x in program])
    memory[: words.size] = words
    memory[63] = isa.encode_line(dict(act=0, weight=0, shift=0, ones=0, **isa.ONE_WORD), PASS)

    def execute():
        if verilog:
            VerilatorSimulator(ACCELERATOR, memory).run_words(len(program), 10_000)
        else:
            FunctionalSimulator(ACCELERATOR, memory).run_words(0, len(program))

    if (setup, computation) == RIGHT:
        execute()
    else:
        with pytest.raises(AcceleratorError):
            execute()


def test_a_machine_without_units_refuses_floats():
    machine = FunctionalSimulator(Accelerator(), np.zeros(64, np.uint64))
    with pytest.raises(AcceleratorError, match="0 float units"):
        machine.run([isa.Setup(**FLOATS), isa.Finish()])
    with pytest.raises(TargetError, match="3 float units: buffers give and take two numbers"):
        Accelerator(float_units=3)


def constant(*values):
    return tuple(np.full(4, value, np.float32) for value in values)


REFUSED = {
    "float step 'divide' isn't computed there": [FloatStep("divide", constant(2))],
    "float step 'multiply' isn't": [FloatStep("add", constant(1)),
                                    FloatStep("multiply", constant(2))],
    "float step 'residual' isn't": [FloatStep(RESIDUAL), FloatStep(RESIDUAL)],
    "constants 1e-35, 1, 0 may leave": [FloatStep("multiply", constant(1e-35)),
                                        FloatStep("add", constant(0))],
    "constants 1e+30, 1, -0 may leave": [FloatStep("multiply", constant(1e30))],
    "constants nan, 1, -0 may leave": [FloatStep("multiply", constant(np.nan))],
    "its limits cross": [FloatStep("clip", constant(2, 1))],
    "or end at -0": [FloatStep("minimum", constant(-0.0))],
}  # fmt: skip


@pytest.mark.parametrize("message, steps", REFUSED.items(), ids=REFUSED.keys())
def test_refused(message, steps, random_layer, conv_layer):
    layer = conv_layer(random_layer(0, Encoding.signed(1), Encoding.unsigned(1), out_channels=4))
    static = replace(layer, steps=(FloatStep("astype"), *steps))
    with pytest.raises(UnsupportedError) as caught:
        compile_conv(static, ACCELERATOR)
    assert message in caught.value.cause
    with pytest.raises(UnsupportedError, match="it ends in float arithmetic"):
        compile_conv(static, Accelerator())


number = st.builds(np.ldexp, st.floats(-1, 1, width=32), st.integers(-149, 127)).map(np.float32)


@given(scale=number, factor=number, term=number, acc=st.integers(-(2**31), 2**31 - 1))
def test_accepted_constants_stay_among_normal_numbers(scale, factor, term, acc):
    """Found for the smallest accumulators and the largest, and for any other."""
    none = np.full(1, np.inf, np.float32)
    constants = (np.full(1, x, np.float32) for x in (scale, factor, term))
    if not floats._is_normal(floats.FloatArithmetic(*constants, -none, none))[0]:
        return
    for value in (acc, 1, -1, 2**31 - 1, -(2**31)):
        with np.errstate(all="raise"):  # Underflow and overflow are errors.
            product = np.float32(value) * scale
        total = fused_multiply_add(product, factor, term)
        exact = np.float64(product) * np.float64(factor) + np.float64(term)
        for x in (product, total):
            assert x == 0 or 2.0**-126 <= abs(x) < np.inf
        assert total != 0 or exact == 0


@pytest.fixture
def target(tmp_path):
    """File of the default machine with a float unit."""
    text = (data_folder("targets") / "vta" / "default.toml").read_text()
    (tmp_path / "floats.toml").write_text(text.replace("units = 0", "units = 1"))
    return str(tmp_path / "floats.toml")


class Blocks(torch.nn.Module):
    """Residual blocks whose shortcuts are floats: with an activation, without, and with others."""

    def __init__(self):
        super().__init__()
        self.first = self.part(3, 12)
        self.parts = torch.nn.ModuleList(self.part(12, 12) for _ in range(3))
        self.last = self.part(12, 5)

    @staticmethod
    def part(channels, out_channels):
        conv = QConv2d(channels, out_channels, 3, padding=1, weight_bits=2, act_bits=2, bias=False)
        return torch.nn.Sequential(conv, torch.nn.BatchNorm2d(out_channels))

    def forward(self, x):
        x = self.first(x)
        x = torch.relu(self.parts[0](x) + x)
        x = self.parts[1](x) + x
        return self.last(torch.clamp(self.parts[2](x) + x, -1, 1))


@both
def test_residual_blocks(verilog, target, same):
    """Nothing is left to the CPU but quantizers of floats that others read, too."""
    torch.manual_seed(0)
    model, x = randomised(Blocks()), torch.randn(2, 3, 6, 7)
    mod = be.from_torch(model, (x,))
    lib = be.build(mod, target=target, simulator="verilog" if verilog else None)
    y = lib(x)
    assert same(y, be.build(mod, threads=1)(x)) and len(np.unique(y)) > 50
    report = lib.report()
    assert [row.strategy for row in report.layers] == ["vta"] * 5
    assert [row.out_bits for row in report.layers] == [32, 32, 32, 2, 32]
    assert [row.shape.endswith("+ residual") for row in report.layers] == [
        False,
        *[True] * 3,
        False,
    ]
    assert not {op.op for op in report.float_ops} & {"add", "multiply_add", "relu", "astype"}


@pytest.mark.slow
def test_resnet(target, same):
    """Of a whole network, the CPU quantizes the image and pools floats."""
    torch.manual_seed(0)
    model, x = randomised(ResNet18(2, 2, num_classes=10, width=16)), torch.randn(1, 3, 64, 64)
    mod = be.from_torch(model, (x,))
    lib = be.build(mod, target=target)
    y = lib(x)
    assert same(y, be.build(mod, threads=1)(x)) and len(np.unique(y)) == 10
    ops = {op.op: op.count for op in lib.report().float_ops}
    assert ops == {"clip": 2, "multiply": 2, "max_pool2d": 1, "mean": 1}
