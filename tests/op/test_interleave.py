"""`interleave`: small images woven into a large one."""

import numpy as np
import pytest

from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.op import interleave

rng = np.random.default_rng(0)


def woven(parts, strides, size, axis):
    parts = [np.moveaxis(part, (axis, axis + 1), (0, 1)) for part in parts]
    height, width = parts[0].shape[:2]
    whole = np.zeros((height * strides[0], width * strides[1], *parts[0].shape[2:]), parts[0].dtype)
    for phase, part in enumerate(parts):
        i, j = divmod(phase, strides[1])
        whole[i :: strides[0], j :: strides[1]] = part
    return np.moveaxis(whole[: size[0], : size[1]], (0, 1), (axis, axis + 1))


@pytest.mark.parametrize("dtype", ["uint8", "float32", "uint64"])
@pytest.mark.parametrize(
    "shape, axis, strides, size",
    [((2, 3, 4, 5), 2, (2, 2), (8, 10)), ((1, 3, 2, 2, 4), 1, (3, 2), (7, 3))],
)
def test_it_weaves(shape, axis, strides, size, dtype, module_of, outputs_of, same):
    largest = {"uint8": 255, "float32": 1, "uint64": 9e18}[dtype]
    phases = range(strides[0] * strides[1])
    parts = [(largest * rng.random(shape)).astype(dtype) for _ in phases]
    mod = module_of(
        [shape] * len(parts), lambda b, *xs: b.emit(interleave(xs, strides, size, axis)), dtype
    )
    assert same(outputs_of(mod, parts)[0], woven(parts, strides, size, axis))


def test_the_number_of_parts_is_checked(module_of):
    with pytest.raises(UnsupportedError, match=r"interleave.*1 parts for strides \[2, 2\]"):
        module_of([(1, 1, 2, 2)], lambda b, x: b.emit(interleave([x], (2, 2), (4, 4))))
