"""`bitenc.quantize` and `bitenc.encode` run as `Encoding` says, without any pass."""

import numpy as np
import pytest
from tvm import relax

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.op import encode, quantize
from tvm_bitenc.op.quantize import encoding_of
from tvm_bitenc.rounding import ROUND
from tvm_bitenc.transform import no_lowering

rng = np.random.default_rng(0)


def edges(encoding):
    """Random values, levels, midpoints between them, and their two float32 neighbours."""
    steps = np.arange(-1, 2 ** (encoding.bits + 1)) / 2
    middle = ((steps - encoding.zero_point) * encoding.scale).astype(np.float32)
    beyond = [np.nextafter(middle, np.float32(end)) for end in (-np.inf, np.inf)]
    special = np.array([-0.0, 0.0, 1e-45, -1e-45, 3e38, -3e38, np.inf, -np.inf], np.float32)
    noise = (rng.normal(size=500) * 2**encoding.bits * encoding.scale).astype(np.float32)
    return np.concatenate([middle, *beyond, special, noise])


ENCODINGS = [
    *(Encoding(bits, scale, zero) for bits in (1, 2, 5, 8) for scale in (2.0, 0.1, 1 / 3)
      for zero in (0.0, 2.0 ** (bits - 1), (2**bits - 1) / 2)),
    Encoding.symmetric(1, 0.7),
    Encoding.ternary(0.3),
    Encoding(3, 0.1, 1.5, (1, 1, 3)),
    Encoding(2, 1.0, 0.0, (0.7, 1.9)),
    *(Encoding(bits, 0.1, 2.0 ** (bits - 1) - 1, max_code=2**bits - 2, rounding=rounding,
               late_zero_point=late)
      for bits in (2, 4, 8) for rounding in ROUND for late in (0, 2 ** (bits - 1) - 1)),
]  # fmt: skip


def test_all_encodings_bit_for_bit(module_of, outputs_of, same):
    inputs = [edges(encoding) for encoding in ENCODINGS]
    mod = module_of(
        [x.shape for x in inputs],
        lambda builder, *xs: [
            builder.emit(op(x, encoding))
            for x, encoding in zip(xs, ENCODINGS)
            for op in (encode, quantize)
        ],
    )
    outputs = iter(outputs_of(mod, inputs, pipeline=no_lowering))
    for x, encoding in zip(inputs, ENCODINGS):
        codes = encoding.quantize(x)
        assert same(next(outputs), codes), encoding
        assert same(next(outputs), encoding.dequantize(codes)), encoding


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_parameters_per_channel(axis, module_of, outputs_of, same):
    x = rng.normal(size=(3, 3, 3)).astype(np.float32)
    encoding = Encoding(2, [0.1, 0.5, 2.0], [0, 1.5, 2])
    mod = module_of([x.shape], lambda builder, v: builder.emit(quantize(v, encoding, axis)))
    (y,) = outputs_of(mod, [x], pipeline=no_lowering)
    assert same(y, encoding.dequantize(encoding.quantize(x, axis), axis))


def test_a_call_keeps_its_encoding():
    x = relax.Var("x", relax.TensorType((2, 3), "float32"))
    for encoding in (
        Encoding(2, [0.5, 1, 2], 1.5, (1, 3)),
        Encoding(3, [0.5, 1, 2], 1.5, rounding="floor", max_code=6, late_zero_point=2),
    ):
        found = encoding_of(encode(x, encoding, axis=1, layer="conv"))
        for name in ("bits", "coefficients", "rounding", "max_code", "late_zero_point"):
            assert getattr(found, name) == getattr(encoding, name)
        assert np.array_equal(found.scale, encoding.scale) and found.zero_point == 1.5


def test_wrong_arguments_are_refused(module_of):
    per_channel = Encoding(2, [1.0, 2.0], 0.0)
    for shape, dtype, encoding, axis, message in [
        ((2, 3), "float64", Encoding.unsigned(2), -1, "quantize of layer 'conv'.*float64.*Cast"),
        ((2, 3), "int32", Encoding.unsigned(2), -1, "Cast it to float32"),
        ((2, 3), "float32", per_channel, 1, "axis of the channels"),
        ((2, 3), "float32", per_channel, -1, "axis of the channels"),
        ((2, 3), "float32", per_channel, 2, "axis of the channels"),
    ]:
        with pytest.raises(UnsupportedError, match=message):
            module_of(
                [shape],
                lambda b, x, e=encoding, a=axis: b.emit(quantize(x, e, a, layer="conv")),
                dtype,
            )


def test_scales_must_be_constant(module_of, outputs_of):
    def body(builder, x, scale):
        call = quantize(x, Encoding.unsigned(2), layer="conv")
        return builder.emit(relax.Call(call.op, [x, scale, call.args[2]], call.attrs))

    with pytest.raises(UnsupportedError, match="layer 'conv'.*isn't constant.*Bind"):
        outputs_of(module_of([(2, 3), ()], body), [])


def test_an_invalid_constant_scale_names_the_op(module_of, outputs_of):
    def body(builder, x):
        call = quantize(x, Encoding.unsigned(2), layer="conv")
        zero = relax.const(0.0, "float32")
        return builder.emit(relax.Call(call.op, [x, zero, call.args[2]], call.attrs))

    with pytest.raises(UnsupportedError, match="bitenc.quantize of layer 'conv'.*s > 0"):
        outputs_of(module_of([(2, 3)], body), [])
