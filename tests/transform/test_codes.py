"""Residual adds in every spelling: convolutions are branches, sums are tables, all exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_bitenc import op as bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op import quantize
from tvm_bitenc.target import native_target
from tvm_bitenc.transform.codes import Codes
from tvm_bitenc.transform.pipeline import default_pipeline

op = relax.op
CHANNELS = 12
WEIGHT = Encoding.signed(2, 2.0**-4)


def const(value):
    return relax.const(np.asarray(value, np.float32))


class Network:
    """A builder of layers with random weights."""

    def __init__(self, builder, random_layer, bits):
        self.builder, self.random_layer = builder, random_layer
        self.bits, self.count = bits, 0

    def emit(self, call):
        return self.builder.emit(call)

    def quantize(self, x, scale, signed=False, bits=None):
        kind = Encoding.signed if signed else Encoding.unsigned
        return self.emit(quantize(x, kind(bits or self.bits, scale)))

    def conv(self, x, kernel=3):
        """Convolution of a quantized tensor and batch-norm."""
        self.count += 1
        rng = np.random.default_rng(self.count)
        shape = (CHANNELS, int(x.ty.shape[1]), kernel, kernel)
        weight = const(rng.integers(-2, 2, shape) * 2.0**-4)
        weight = self.emit(quantize(weight, WEIGHT, layer=f"conv{self.count}"))
        y = self.emit(op.nn.conv2d(x, weight, padding=(kernel // 2,) * 4))
        scale = rng.choice([-1, 1], (1, CHANNELS, 1, 1)) * rng.uniform(0.5, 2)
        y = self.emit(op.multiply(y, const(scale)))
        return self.emit(op.add(y, const(rng.normal(size=(1, CHANNELS, 1, 1)))))

    def add(self, a, b):
        return self.emit(op.add(a, b))

    def relu(self, x):
        return self.emit(op.nn.relu(x))


def both_quantized(net, x):
    """FINN and Brevitas: one quantizer for both operands."""
    x = net.quantize(x, 0.5)
    y = net.quantize(net.relu(net.conv(x)), 0.5)
    y = net.add(net.quantize(net.conv(y), 0.25, True), net.quantize(x, 0.25, True))
    return net.conv(net.quantize(net.relu(y), 0.5))


def projected(net, x):
    """Convolutions on both branches, whose quantizers differ."""
    x = net.quantize(x, 0.5)
    y = net.add(net.quantize(net.conv(x), 0.3, True), net.quantize(net.conv(x, 1), 0.7, True))
    return net.conv(net.quantize(net.relu(y), 1.0))


def in_sequence(net, x):
    """Sums are shortcuts of further sums, by the quantizer behind each."""
    x = net.quantize(x, 0.5)
    for _ in range(2):
        y = net.add(net.quantize(net.conv(x), 0.5, True), x)
        x = net.quantize(net.relu(y), 0.5)
    return net.conv(x)


def one_quantized(net, x):
    """PT2E: the convolution's float and the shortcut's level are added."""
    x = net.quantize(x, 0.5)
    y = net.quantize(net.relu(net.conv(x)), 0.25)
    y = net.add(net.conv(net.quantize(net.relu(net.conv(y)), 0.5)), y)
    return net.conv(net.quantize(net.relu(y), 0.5))


def float_shortcut(net, x):
    """What is added was never quantized."""
    y = net.conv(net.quantize(x, 0.5))
    z = net.add(net.conv(net.quantize(y, 0.5)), y)
    return net.conv(net.quantize(z, 0.5))


def other_functions(net, x):
    """Maxima and products of quantized tensors; a sum times a number."""
    x = net.quantize(x, 0.5)
    a, b = (net.quantize(net.relu(net.conv(x)), scale) for scale in (0.25, 0.4))
    c = net.quantize(net.emit(op.maximum(a, b)), 0.25)
    d = net.quantize(net.emit(op.multiply(a, b)), 0.5)
    e = net.quantize(net.emit(op.multiply(net.add(a, b), const(0.3))), 0.125)
    return net.add(net.add(net.conv(c), net.conv(d)), net.conv(e))


SPELLINGS = [both_quantized, projected, in_sequence, one_quantized, float_shortcut, other_functions]
TABLES = {both_quantized: 2, projected: 1, in_sequence: 2, other_functions: 3}


def residual_module(spelling, bits, module_of, random_layer):
    return module_of(
        [(2, CHANNELS, 5, 6)], lambda b, x: spelling(Network(b, random_layer, bits), x)
    )


BITS = [2, *(pytest.param(bits, marks=pytest.mark.slow) for bits in (1, 3, 4, 6))]


@pytest.mark.sweep(2)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_exact(spelling, bits, module_of, random_layer, outputs_of, ops_of, only, same):
    mod = residual_module(spelling, bits, module_of, random_layer)
    x = np.random.default_rng(0).normal(size=(2, CHANNELS, 5, 6)).astype(np.float32)
    (expected,), (compiled,) = (outputs_of(mod, [x], **o) for o in ({"pipeline": only()}, {}))
    assert same(expected, compiled) and len(np.unique(expected)) > 5
    ops = ops_of(default_pipeline(native_target()).until("bitenc.Layout").run(mod))
    assert "relax.nn.conv2d" not in ops
    if 2 <= bits <= 4:  # Of 1 bit, several tables are one.
        assert ops.count("bitenc.lookup") == TABLES.get(spelling, 0)


@pytest.mark.parametrize("spelling", TABLES)
def test_no_float_is_left_between(spelling, module_of, random_layer, ops_of):
    """From the first encoder to the last accumulator there are codes alone."""
    mod = residual_module(spelling, 2, module_of, random_layer)
    ops = ops_of(default_pipeline(native_target()).until("bitenc.ChannelsLast").run(mod))
    assert ops.count("bitenc.encode") == 1
    assert not {"bitenc.quantize", "bitenc.decode", "relax.nn.relu", "relax.maximum"} & set(ops)


scales = st.floats(0.0625, 4.0, width=32)


@settings(max_examples=6, deadline=None)
@given(
    first=st.tuples(st.integers(1, 4), scales, st.integers(0, 15)),
    second=st.tuples(st.integers(1, 4), scales, st.integers(0, 15)),
    third=st.tuples(st.integers(1, 4), scales, st.integers(0, 15)),
    has_relu=st.booleans(),
)
def test_any_two_scales(module_of, outputs_of, ops_of, only, same, first, second, third, has_relu):
    """Every pair of codes, scales and zero points as they come."""
    a, b, c = (
        Encoding(bits, scale, min(twice, 2**bits) / 2)
        for bits, scale, twice in (first, second, third)
    )
    levels = np.meshgrid(*(e.dequantize(np.arange(2**e.bits)) for e in (a, b)), indexing="ij")
    xs = [np.broadcast_to(level, (1, 3, *level.shape)).astype(np.float32) for level in levels]

    def body(builder, x, y):
        x, y = builder.emit(quantize(x, a)), builder.emit(quantize(y, b))
        total = builder.emit(op.add(x, y))
        total = builder.emit(op.nn.relu(total)) if has_relu else total
        return builder.emit(quantize(total, c))

    mod = module_of([xs[0].shape] * 2, body)
    assert ops_of(Codes()(mod)).count("bitenc.lookup") == 1
    (expected,), (compiled,) = (outputs_of(mod, xs, **o) for o in ({"pipeline": only()}, {}))
    assert same(expected, compiled)


def test_adds_between_dense_layers(module_of, outputs_of, ops_of, only, same):
    def body(builder, x):
        a, b = (builder.emit(quantize(x, Encoding.signed(3, scale))) for scale in (0.5, 0.75))
        return builder.emit(quantize(builder.emit(op.add(a, b)), Encoding.signed(4, 0.3)))

    mod = module_of([(5, 70)], body)
    assert "bitenc.lookup" in ops_of(Codes()(mod))
    x = np.random.default_rng(0).normal(size=(5, 70), scale=2).astype(np.float32)
    (expected,), (compiled,) = (outputs_of(mod, [x], **o) for o in ({"pipeline": only()}, {}))
    assert same(expected, compiled)


@pytest.mark.parametrize(
    "call",
    [
        lambda b, x, y: op.subtract(x, y),  # Falls along one axis.
        lambda b, x, y: op.add(x, op.abs(y)),  # Turns.
        lambda b, x, y: op.multiply(op.add(x, y), const([[[[1.0]], [[2.0]], [[3.0]]]])),
        lambda b, x, y: op.sigmoid(op.add(x, y)),  # Last bits depend on the CPU's library.
    ],
)
def test_what_stays_float(call, module_of, outputs_of, ops_of, only, same):
    def body(builder, x, y):
        x, y = (builder.emit(quantize(value, Encoding.signed(3, 0.5))) for value in (x, y))
        return builder.emit(quantize(builder.emit(call(builder, x, y)), Encoding.signed(3, 0.5)))

    mod = module_of([(1, 3, 4, 4)] * 2, body)
    assert "bitenc.lookup" not in ops_of(Codes()(mod))
    xs = np.random.default_rng(0).normal(size=(2, 1, 3, 4, 4)).astype(np.float32)
    (expected,), (compiled,) = (outputs_of(mod, xs, **o) for o in ({"pipeline": only()}, {}))
    assert same(expected, compiled)


def test_golden(assert_same_ir):
    """0.5 a + b, rounded down to half of it: a table of pairs."""
    first, second, sums = (
        Encoding.unsigned(bits, scale) for bits, scale in ((1, 0.5), (2, 1.0), (2, 2.0))
    )
    table = np.array([[0, 0, 1, 2], [0, 1, 1, 2]], np.uint8)

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 2, 3, 3), "float32"), x1: R.Tensor((1, 2, 3, 3), "float32")):
            with R.dataflow():
                q = bitenc.quantize(x, first)
                q1 = bitenc.quantize(x1, second)
                y = R.nn.relu(R.add(q, q1))
                codes = bitenc.encode(y, sums)
                R.output(codes)
            return codes

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((1, 2, 3, 3), "float32"), x1: R.Tensor((1, 2, 3, 3), "float32")):
            with R.dataflow():
                a = bitenc.encode(x, first)
                b = bitenc.encode(x1, second)
                codes = bitenc.lookup([a, b], table, bits=2)
                R.output(codes)
            return codes

    assert_same_ir(Codes()(Before), After)


def test_golden_floats_beside_codes(assert_same_ir):
    """The sum with x1 needs the floats, and the layer behind the second encoder the codes."""
    act = Encoding.signed(3, 0.5)
    weight = np.ones((2, 2, 1, 1), np.uint8)

    @I.ir_module
    class Before:
        @R.function
        def main(codes: R.Tensor((1, 2, 3, 3), "uint8"), x1: R.Tensor((1, 2, 3, 3), "float32")):
            with R.dataflow():
                acc = bitenc.branch_conv2d(codes, act, weight, act)
                x = R.astype(acc, "float32")
                q = bitenc.quantize(x, act)
                y = R.add(q, x1)
                a = bitenc.encode(x, act)
                R.output(y, a)
            return y, a

    @I.ir_module
    class After:
        @R.function
        def main(codes: R.Tensor((1, 2, 3, 3), "uint8"), x1: R.Tensor((1, 2, 3, 3), "float32")):
            with R.dataflow():
                acc = bitenc.branch_conv2d(codes, act, weight, act)
                x = R.astype(acc, "float32")
                a = bitenc.encode(x, act)
                q = bitenc.decode(a, act)
                y = R.add(q, x1)
                R.output(y, a)
            return y, a

    assert_same_ir(Codes()(Before), After)
