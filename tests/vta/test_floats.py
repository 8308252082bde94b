"""Float arithmetic behind accumulators: numbers, codes of them, and both, on both simulators."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vta.cases import both
from tvm_bitenc.accelerator import Accelerator
from tvm_bitenc.encoding import Encoding, pack
from tvm_bitenc.errors import TargetError, UnsupportedError
from tvm_bitenc.layer import RESIDUAL, FloatStep
from tvm_bitenc.op.multiply_add import fused_multiply_add
from tvm_bitenc.vta import floats
from tvm_bitenc.vta.compile_layer import compile_conv, output_of
from tvm_bitenc.vta.cost import cycles
from tvm_bitenc.vta.functional import FunctionalSimulator
from tvm_bitenc.vta.verilator import VerilatorSimulator

ACCELERATOR = Accelerator(float_units=1)
STEPS = {
    "scaled": ["multiply"],
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
            constants[rng.random(constants.shape) < 0.1] = 0
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


def run(program, words, accelerator, verilog):
    memory = program.image(words)
    count = len(program.instructions)
    if verilog:
        ran = VerilatorSimulator(accelerator, memory).run_words(count)
        print(cycles(program.instructions, accelerator), ran)
    else:
        FunctionalSimulator(accelerator, memory).run_words(0, count)
    return memory[program.output_address :]


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
            operands = [planes(layer).reshape(-1)]
            if RESIDUAL in names:
                operands.append(program.residual(residual))
            words = run(program, np.concatenate(operands), accelerator, verilog)
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
