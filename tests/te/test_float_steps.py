"""Each step behind accumulators gives the very floats of the op that it stands for."""

import numpy as np
import pytest
from tvm import relax

from tvm_bitenc.layer import STEP_CONSTANTS
from tvm_bitenc.op import multiply_add
from tvm_bitenc.op.packed import packed_conv2d_op
from tvm_bitenc.op.registration import is_call_to, make_call
from tvm_bitenc.target import native_target
from tvm_bitenc.te.float_steps import ROUNDINGS
from tvm_bitenc.transform import Pipeline
from tvm_bitenc.transform.fuse_float import FuseFloat
from tvm_bitenc.transform.schedule import Schedule
from tvm_bitenc.transform.strategy import Strategy
from tvm_bitenc.transform.visit import visit_calls

op, rng = relax.op, np.random.default_rng(0)
SHAPE, CHANNELS = (1, 5, 4, 1, 2), 70
WEIGHT = relax.const(rng.integers(0, 2, (CHANNELS, 100, 3, 3)), "uint8")
OFFSET = relax.const(np.zeros(CHANNELS), "int32")
CONV = dict(act_coefficients=[1], weight_coefficients=[1], act_offset=0, layer="conv", steps=[])
CONV |= dict(strides=[1, 1], padding=[0] * 4, dilation=[1, 1], groups=1, strategy="")


def numbers():
    """One for each channel: signs, fractions, and what overflows."""
    values = rng.normal(size=CHANNELS).astype(np.float32)
    values[:4] = [0, -1, 1e38, 1e-38]
    return relax.const(values.reshape(1, 1, 1, CHANNELS))


STEPS = {
    "astype": lambda b, y, residual: y,
    "multiply": lambda b, y, residual: op.multiply(y, numbers()),
    "divide": lambda b, y, residual: op.divide(y, numbers()),
    "add": lambda b, y, residual: op.add(numbers(), y),
    "maximum": lambda b, y, residual: op.maximum(y, numbers()),
    "minimum": lambda b, y, residual: op.minimum(numbers(), y),
    "prelu": lambda b, y, residual: op.nn.prelu(y, op.reshape(numbers(), (CHANNELS,)), 3),
    "clip": lambda b, y, residual: op.clip(y, -4.5, 7),
    "multiply_add": lambda b, y, residual: multiply_add(y, numbers(), numbers()),
    "round": lambda b, y, residual: op.round(b.emit(op.multiply(y, numbers()))),
    "floor": lambda b, y, residual: op.floor(b.emit(op.multiply(y, numbers()))),
    "ceil": lambda b, y, residual: op.ceil(b.emit(op.multiply(y, numbers()))),
    "trunc": lambda b, y, residual: op.trunc(b.emit(op.multiply(y, numbers()))),
    "residual": lambda b, y, residual: op.add(residual, y),
}


@pytest.fixture
def network(module_of):
    """A convolution for each step, and a sum behind it."""

    def body(builder, planes, residual):
        results = []
        for step in STEPS.values():
            acc = builder.emit(make_call(packed_conv2d_op, [planes, WEIGHT, OFFSET], **CONV))
            y = builder.emit(op.astype(acc, "float32"))
            y = builder.emit(builder.normalize(step(builder, y, residual)))
            results.append(builder.emit(op.add(y, numbers())))  # Tells two roundings from one.
        return results

    return module_of([SHAPE, (1, 3, 2, CHANNELS)], body, ["uint64", "float32"])


def steps_of(mod):
    found = []

    def note(call, _graph):
        if is_call_to(call, packed_conv2d_op):
            found.append([str(step) for step in call.attrs["steps"]])

    visit_calls(mod, note)
    return found


def test_every_step_is_here():
    assert set(STEPS) == set(STEP_CONSTANTS)


@pytest.mark.sweep(1)
@pytest.mark.parametrize("scheduled", [False, True], ids=["plain", "scheduled"])
def test_bit_for_bit(scheduled, network, outputs_of, only, same):
    own = {"astype": []} | {name: ["multiply", name] for name in ROUNDINGS}
    expected = [["astype", *own.get(name, [name]), "add"] for name in STEPS]
    assert steps_of(FuseFloat()(network)) == expected
    planes = rng.integers(0, 2**64, SHAPE, np.uint64)
    planes[..., 1] &= np.uint64(2**36 - 1)  # No bits beyond the channels.
    residual = rng.normal(size=(1, 3, 2, CHANNELS)).astype(np.float32)
    residual[0, 0, 0, :2] = np.nan, np.inf
    target = native_target()
    kernels = [Strategy("xnor", target), Schedule(target)] if scheduled else []
    before = outputs_of(network, [planes, residual], pipeline=only())
    after = outputs_of(
        network, [planes, residual], pipeline=lambda *_: Pipeline([FuseFloat(), *kernels])
    )
    pairs = zip(STEPS, before, after, strict=True)
    assert [name for name, *pair in pairs if not same(*pair)] == []
