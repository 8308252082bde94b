"""Quantizers move in front of shaping ops, with the arithmetic between, and nothing changes."""

import numpy as np
import pytest
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_bitenc import op as bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op import interleave, quantize
from tvm_bitenc.transform import no_lowering
from tvm_bitenc.transform.push_quantizers import PushQuantizers

op, rng = relax.op, np.random.default_rng(0)
ACT = Encoding.unsigned(2, 0.5)


ROWS = relax.const(np.array([0, 1, 1, 3, 2]), "int64")


def const(*shape):
    return relax.const(rng.uniform(0.5, 2, shape).astype(np.float32))


def test_golden(assert_same_ir):
    values = rng.normal(size=(1, 5, 1, 1)).astype(np.float32)
    gamma, gamma_a, gamma_b = map(relax.const, (values, values[:, :3], values[:, 3:]))

    @I.ir_module
    class Before:
        @R.function
        def main(a: R.Tensor((1, 3, 2, 2), "float32"), b: R.Tensor((1, 2, 2, 2), "float32")):
            with R.dataflow():
                y = R.concat((a, b), axis=1)
                y1 = R.nn.relu(R.multiply(y, gamma))
                q = bitenc.quantize(y1, ACT, layer="act")
                R.output(q)
            return q

    @I.ir_module
    class After:
        @R.function
        def main(a: R.Tensor((1, 3, 2, 2), "float32"), b: R.Tensor((1, 2, 2, 2), "float32")):
            with R.dataflow():
                qa = bitenc.quantize(R.nn.relu(R.multiply(a, gamma_a)), ACT, layer="act")
                qb = bitenc.quantize(R.nn.relu(R.multiply(b, gamma_b)), ACT, layer="act")
                q = R.concat((qa, qb), axis=1)
                R.output(q)
            return q

    assert_same_ir(PushQuantizers()(Before), After)


def joined(builder, x):
    return op.concat([x, builder.emit(op.negative(x))], 2)


# What a quantizer is pushed through: (op on x of shape (1, 6, 4, 4), shape of a constant behind).
MOVED = {
    "concat along rows": (joined, (1, 6, 1, 1)),
    "concat along channels": (lambda b, x: op.concat([x, x], 1), (12, 1, 1)),
    "constants of two axes": (lambda b, x: op.concat([x, x], 1), (12, 4, 1)),
    "padding": (lambda b, x: op.nn.pad(x, (0, 0, 0, 0, 1, 2, 0, 1), "constant", 0.7), (1,)),
    "reflection": (lambda b, x: op.nn.pad(x, (0,) * 4 + (1,) * 4, "reflect"), (1, 6, 1, 1)),
    "nearest": (lambda b, x: op.image.resize2d(x, (8, 8), method="nearest_neighbor"), (6, 1, 1)),
    "interleave": (lambda b, x: interleave([x] * 4, (2, 2), (7, 8)), (1, 6, 1, 1)),
    "reshape": (lambda b, x: op.reshape(x, (1, 6, 16)), (6, 1)),
    "squeeze": (lambda b, x: op.squeeze(x, 0), (6, 1, 1)),
    "expand_dims": (lambda b, x: op.expand_dims(x, (0, 3)), (6, 1, 1, 1)),
    "permute_dims": (lambda b, x: op.permute_dims(x, (0, 2, 3, 1)), (6,)),
    "flip": (lambda b, x: op.flip(x, 3), (1, 6, 1, 1)),
    "repeated rows": (lambda b, x: op.take(x, ROWS, 2), (1, 6, 1, 1)),
}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", MOVED)
def test_moved(name, module_of, outputs_of, ops_of, same):
    shaping, shape = MOVED[name]

    def body(builder, x):
        y = builder.emit(shaping(builder, x))
        y = builder.emit(op.multiply(y, const(*shape)))
        y = builder.emit(op.nn.relu(builder.emit(op.subtract(y, const(*shape)))))
        return builder.emit(quantize(y, ACT))

    mod = module_of([(1, 6, 4, 4)], body)
    pushed = PushQuantizers()(mod)
    assert ops_of(pushed)[-1] not in ("bitenc.quantize", "relax.nn.relu", "relax.subtract")
    x = 2 * rng.normal(size=(1, 6, 4, 4)).astype(np.float32)
    pair = [outputs_of(m, [x], pipeline=no_lowering)[0] for m in (mod, pushed)]
    assert same(*pair) and len(np.unique(pair[0])) == 4


# What it isn't pushed through: another value would be quantized, or more of them.
KEPT = {
    "padding of channels that differ": MOVED["padding"][0],
    "a convolution": lambda b, x: op.nn.conv2d(x, const(6, 6, 1, 1)),
    "bilinear": lambda b, x: op.image.resize2d(x, (8, 8), method="linear"),
    "fewer rows": lambda b, x: op.take(x, relax.const(np.array([2, 0]), "int64"), 2),
    "slices": lambda b, x: op.strided_slice(x, [2], [1], [3]),
    "axes that a reshape merges": lambda b, x: op.reshape(x, (6, 2, 8)),
}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name, module_of, assert_same_ir):
    def body(builder, x):
        y = builder.emit(KEPT[name](builder, x))
        _, *spatial = list(y.ty.shape)[1:]
        shape = (6, 2, 1) if name == "axes that a reshape merges" else (6, *[1] * len(spatial))
        y = builder.emit(op.multiply(y, const(*shape)))
        return builder.emit(quantize(y, ACT))

    mod = module_of([(1, 6, 4, 4)], body)
    assert_same_ir(PushQuantizers()(mod), mod)


def test_a_scale_per_channel_is_kept(module_of, assert_same_ir):
    per_channel = Encoding(2, np.arange(1.0, 13.0), 0.0)

    def body(builder, x):
        return builder.emit(quantize(builder.emit(op.concat([x, x], 1)), per_channel, axis=1))

    mod = module_of([(1, 6, 4, 4)], body)
    assert_same_ir(PushQuantizers()(mod), mod)


def test_through_all_of_them_at_once(module_of, outputs_of, ops_of, same):
    """A tree of concatenations, and shaping ops one behind the other."""

    def body(builder, x):
        up = builder.emit(op.image.resize2d(x, (8, 8), method="nearest_neighbor"))
        wide = builder.emit(op.nn.pad(x, (0,) * 4 + (2,) * 4, "constant", 0.0))
        inner = builder.emit(op.nn.relu(builder.emit(op.concat([up, wide], 1))))
        outer = builder.emit(op.concat([builder.emit(op.negative(up)), inner], 1))
        outer = builder.emit(op.add(outer, const(1, 18, 1, 1)))
        wide = builder.emit(op.multiply(outer, relax.const(np.float32(2))))
        return builder.emit(quantize(wide, ACT))

    mod = module_of([(1, 6, 4, 4)], body)
    pushed = PushQuantizers()(mod)
    names = ops_of(pushed)
    # Zeros of the padding become different numbers by channel: that part stays as it is.
    last = max(i for i, name in enumerate(names) if name == "bitenc.quantize")
    assert names[last + 1 :].count("relax.concat") == 2
    x = rng.normal(size=(1, 6, 4, 4)).astype(np.float32)
    assert same(*(outputs_of(m, [x], pipeline=no_lowering)[0] for m in (mod, pushed)))
