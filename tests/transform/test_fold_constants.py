"""Constants are folded, those without elements among them."""

import numpy as np
import pytest
from tvm import relax

import tvm_bitenc as be


@pytest.mark.parametrize("shape", [(0,), (2, 0, 3)])
def test_empty_constants_are_outputs_and_operands(shape):
    """TVM writes an empty constant, and doesn't read it again where it is the last one."""
    empty = relax.const(np.zeros(shape, np.float32))
    x = relax.Var("x", relax.TensorType((1,), "float32"))
    for is_operand in (False, True):
        builder = relax.BlockBuilder()
        with builder.function("main", [x]):
            y = builder.emit(relax.op.multiply(x, empty)) if is_operand else empty
            builder.emit_func_output(y)
        y = be.build(builder.get(), threads=1)(np.ones(1, np.float32))
        assert y.shape == shape and y.dtype == np.float32
