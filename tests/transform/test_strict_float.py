"""Float arithmetic that is left in a network rounds after each op, as numpy's does."""

import numpy as np
import pytest
import tvm
from tvm import relax

import tvm_bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op import quantize
from tvm_bitenc.transform import no_lowering
from tvm_bitenc.transform.strict_float import STRICT_LEGALIZATION

op = relax.op
rng = np.random.default_rng(0)
X, A, B = (rng.normal(size=4096).astype(np.float32) for _ in range(3))


def const(values):
    return relax.const(np.float32(values))


BODIES = {
    "x * a + b": (
        lambda b, x: b.emit(op.add(b.emit(op.multiply(x, const(A))), const(B))),
        X * A + B,
    ),
    "b - a * x": (
        lambda b, x: b.emit(op.subtract(const(B), b.emit(op.multiply(const(A), x)))),
        B - A * X,
    ),
    "x * x - b": (
        lambda b, x: b.emit(op.subtract(b.emit(op.multiply(x, x)), const(B))),
        X * X - B,
    ),
    "quantize(x) + b": (
        lambda b, x: b.emit(op.add(b.emit(quantize(x, Encoding.signed(8, 0.1))), const(B))),
        Encoding.signed(8, 0.1).dequantize(Encoding.signed(8, 0.1).quantize(X)) + B,
    ),
    "ternary(x) + b": (
        lambda b, x: b.emit(op.add(b.emit(quantize(x, Encoding.ternary(0.1))), const(B))),
        Encoding.ternary(0.1).dequantize(Encoding.ternary(0.1).quantize(X)) + B,
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_two_roundings(name, module_of, outputs_of, same):
    body, expected = BODIES[name]
    mod = module_of([X.shape], body)
    for options in (dict(), dict(pipeline=no_lowering)):
        (y,) = outputs_of(mod, [X], **options)
        assert same(y, expected)


def test_values_tell_one_rounding_from_two():
    once = (X.astype(np.float64) * A + B).astype(np.float32)
    assert np.count_nonzero(once != X * A + B) > 100


def test_the_fence_stands_in_the_generated_code(module_of):
    """Whether LLVM contracts without it depends on the CPU, so its presence is what counts."""
    body, _ = BODIES["x * a + b"]
    fence = tvm.target.codegen.llvm_lookup_intrinsic_id("llvm.arithmetic.fence")
    mod = module_of([X.shape], body)
    lowered = relax.transform.LegalizeOps(STRICT_LEGALIZATION)(mod)
    assert f"T.uint32({fence})" in lowered.script() or "llvm.arithmetic.fence" in lowered.script()
    assert str(fence) not in relax.transform.LegalizeOps()(mod).script()


def test_batch_norm_keeps_both_roundings(module_of, outputs_of, same):
    parameters = [rng.uniform(0.5, 2, 16).astype(np.float32) for _ in range(4)]

    def body(builder, x):
        constants = map(relax.const, parameters)
        norm = builder.emit(op.nn.batch_norm(x, *constants, axis=1, epsilon=0.0, training=False))
        return builder.emit(relax.TupleGetItem(norm, 0))

    x = X.reshape(1, 16, 16, 16)
    gamma, beta, mean, variance = (p.reshape(1, -1, 1, 1) for p in parameters)
    expected = (x - mean) / np.sqrt(variance) * gamma + beta
    (y,) = outputs_of(module_of([x.shape], body), [x])
    assert same(y, expected)


@pytest.mark.parametrize(
    "shape, repeats",
    [
        ((2, 3, 4, 5), (1, 6, 4, 1)),
        ((2, 3, 4, 5), (3, 1, 1, 2)),
        ((2, 3, 4, 5), (2, 2, 2, 2)),
        ((2, 3, 4, 5), (2, 1, 1, 3, 1)),
        ((), (0, 2, 3)),
    ],
)
def test_copies_along_several_axes(shape, repeats):
    x = rng.normal(size=shape).astype(np.float32)
    builder, source = relax.BlockBuilder(), relax.Var("x", relax.TensorType(x.shape, "float32"))
    with builder.function("main", [source]):
        with builder.dataflow():
            out = builder.emit_output(op.tile(source, repeats))
        builder.emit_func_output(out)
    lib = tvm_bitenc.build(builder.get(), threads=1, pipeline=no_lowering)
    np.testing.assert_array_equal(lib(x), np.tile(x, repeats))
