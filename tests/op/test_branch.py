"""`branch_conv2d`, `branch_dense` and `threshold`: their unscheduled lowering is their meaning."""

import numpy as np
import pytest
from tvm import relax

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.op import branch_conv2d, branch_dense, threshold
from tvm_bitenc.reference import pads
from tvm_bitenc.transform import no_lowering

rng = np.random.default_rng(0)


def test_branch_conv2d_is_the_integer_reference(module_of, outputs_of, random_layer, same):
    layers = [
        random_layer(0, Encoding.symmetric(2), Encoding.symmetric(3), padding=(1, 0, 2, 1)),
        random_layer(1, Encoding.signed(3), Encoding.unsigned(2), groups=2, stride=(2, 1)),
        random_layer(2, Encoding(2, 1.0, rng.integers(0, 4, 8) / 2), Encoding.ternary(), padding=1),
        random_layer(3, Encoding.ternary(), Encoding.symmetric(1), dilation=(1, 2), batch=2),
    ]

    def body(builder, *codes):
        return [
            builder.emit(
                branch_conv2d(
                    x,
                    layer.act,
                    layer.weight_codes,
                    layer.weight,
                    strides=layer.window.get("stride", (1, 1)),
                    padding=pads(layer.window.get("padding", 0)),
                    dilation=layer.window.get("dilation", (1, 1)),
                    groups=layer.window.get("groups", 1),
                )
            )
            for x, layer in zip(codes, layers)
        ]

    codes = [layer.act_codes for layer in layers]
    mod = module_of([c.shape for c in codes], body, "uint8")
    for y, layer in zip(outputs_of(mod, codes, pipeline=no_lowering), layers):
        assert same(y, layer.accumulators())


def test_branch_dense_is_the_integer_reference(module_of, outputs_of, random_layer, same):
    layer = random_layer(0, Encoding.signed(3), Encoding.symmetric(2), dense=True, batch=3)
    mod = module_of(
        [layer.act_codes.shape],
        lambda b, x: b.emit(branch_dense(x, layer.act, layer.weight_codes, layer.weight)),
        "uint8",
    )
    (y,) = outputs_of(mod, [layer.act_codes], pipeline=no_lowering)
    assert same(y, layer.accumulators())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_threshold_counts(axis, module_of, outputs_of):
    thresholds = np.sort(rng.integers(-20, 20, (3, 4)), axis=0).astype(np.int32)
    thresholds[2, 0] = 2**31 - 1
    direction = np.array([1, -1, 1, -1], np.int32)
    acc = rng.integers(-25, 25, (4, 4, 4)).astype(np.int32)
    mod = module_of(
        [acc.shape], lambda b, x: b.emit(threshold(x, thresholds, direction, axis)), "int32"
    )
    (codes,) = outputs_of(mod, [acc], pipeline=no_lowering)
    moved = np.moveaxis(acc, axis, -1) * direction
    expected = (moved[..., None] >= thresholds.T).sum(axis=-1)
    assert codes.dtype == np.uint8 and np.array_equal(np.moveaxis(codes, axis, -1), expected)


def test_dtypes_are_checked(module_of):
    codes, one = np.zeros((2, 3), np.uint8), Encoding.unsigned(1)
    with pytest.raises(UnsupportedError, match=r"branch_dense of layer 'fc'.*float32, not uint8"):
        module_of([(1, 3)], lambda b, x: b.emit(branch_dense(x, one, codes, one, layer="fc")))
    with pytest.raises(UnsupportedError, match=r"threshold.*int32"):
        module_of([(1, 3)], lambda b, x: b.emit(threshold(x, np.zeros((1, 3)), np.ones(3))))


def test_an_argument_of_unknown_shape_is_refused():
    x = relax.Var("x", relax.TensorType(None, "uint8", ndim=2))
    one = Encoding.unsigned(1)
    with pytest.raises(UnsupportedError, match="no known shape"):
        relax.BlockBuilder().normalize(branch_dense(x, one, np.zeros((2, 3), np.uint8), one))
