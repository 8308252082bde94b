"""Images in bytes, joined along channels."""

import numpy as np
import pytest
from tvm import relax

from tvm_bitenc.op.packed_channels import bytes_concat
from tvm_bitenc.schedule import find_kernel

PARTS = [(64, 128), (32, 64), (3, 5, 130), (1, 63), (16,)]


@pytest.mark.parametrize("channels", PARTS, ids=str)
def test_parts_lie_side_by_side(channels, target, module_of, outputs_of, same):
    rng = np.random.default_rng(0)
    shapes = [(2, 3, 5, count) for count in channels]
    parts = [rng.integers(0, 256, shape, np.uint8) for shape in shapes]
    mod = module_of(shapes, lambda builder, *xs: builder.emit(bytes_concat(xs)), "uint8")
    for threads in (1, 2):
        (out,) = outputs_of(mod, parts, target=target, threads=threads)
        assert same(out, np.concatenate(parts, -1))


def test_rule(target):
    parts = [relax.Var(f"x{c}", relax.TensorType((1, 4, 4, c), "uint8")) for c in (32, 64)]
    call = relax.BlockBuilder().normalize(bytes_concat(parts))
    assert call.ty.shape[-1] == 96
    assert find_kernel(call, target) is not None
