"""Any array in: read right, or refused in one sentence."""

import tracemalloc

import numpy as np
import pytest
import torch
from tvm import relax

import tvm_bitenc as be
from tvm_bitenc.errors import BitencError
from tvm_bitenc.runtime.arrays import checked_arrays
from tvm_bitenc.runtime.specs import TensorSpec

SHAPE = (2, 3, 4)
SPEC = TensorSpec("x", SHAPE, "float32")
X = np.arange(24, dtype=np.float32).reshape(SHAPE) - 7


def read(value, spec=SPEC, largest=None):
    (array,) = checked_arrays([value], [spec], largest)
    return array


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def strided(x):
    large = np.full((4, 3, 9), np.nan, np.float32)
    large[::2, :, 8:0:-2] = x
    return large[::2, :, 8:0:-2]


def negative(x):
    """A tensor whose sign is kept in a bit beside it."""
    tensor = torch.complex(torch.zeros(x.shape), torch.from_numpy(-x)).conj().imag
    assert tensor.is_neg()
    return tensor


SAME = {
    "numpy": lambda x: x,
    "Fortran": np.asfortranarray,
    "strided": strided,
    "read-only": read_only,
    "other bytes": lambda x: x.astype(x.dtype.newbyteorder()),
    "other bytes, Fortran": lambda x: np.asfortranarray(x.astype(x.dtype.newbyteorder())),
    "mapped": lambda x: x.view(np.memmap),
    "masked nowhere": np.ma.MaskedArray,
    "rows": list,
    "torch": torch.from_numpy,
    "torch, negative": negative,
    "torch, negative part": lambda x: negative(np.pad(x, 1))[1:-1, 1:-1, 1:-1],
    "torch, real part": lambda x: torch.complex(torch.from_numpy(x), torch.ones(SHAPE)).conj().real,
    "torch, gradients": lambda x: torch.from_numpy(x).requires_grad_() * 1,
    "torch, transposed": lambda x: torch.from_numpy(x.T.copy()).permute(2, 1, 0),
    "torch, parameter": lambda x: torch.nn.Parameter(torch.from_numpy(x)),
}


@pytest.mark.parametrize("convert", SAME.values(), ids=SAME)
def test_what_is_read(convert):
    array = read(convert(X))
    assert type(array).__mro__[-2] is np.ndarray and array.dtype == np.float32
    assert array.flags.c_contiguous and array.dtype.isnative
    np.testing.assert_array_equal(array, X)


def test_what_repeats_one_value():
    np.testing.assert_array_equal(read(np.broadcast_to(np.float32(3), SHAPE)), np.full(SHAPE, 3))
    expanded = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(SHAPE)
    np.testing.assert_array_equal(read(expanded), np.broadcast_to([1, 2, 3, 4], SHAPE))


REFUSED = {
    "float64": (X.astype(np.float64), r"is float64 \(2, 3, 4\), but .* compiled for float32"),
    "float16": (X.astype(np.float16), "is float16"),
    "bool": (X > 0, "is bool"),
    "complex": (X.astype(np.complex64), "is complex64"),
    "objects": (X.astype(object), "is object"),
    "no array": (None, r"is object \(\)"),
    "text": ("1, 2, 3", r"is <U7 \(\)"),
    "ragged": ([[1.0], [2.0, 3.0]], "is a list that can't be read"),
    "masked": (np.ma.MaskedArray(X, X > 5), "has masked elements. Fill them in"),
    "scalar": (np.float32(1), r"is float32 \(\)"),
    "nothing": (X[:0], r"is float32 \(0, 3, 4\)"),
    "fields": (np.zeros(SHAPE, [("a", "f4")]), "is .*'a'"),
    "torch bfloat16": (torch.zeros(SHAPE, dtype=torch.bfloat16), "is a Tensor that can't be read"),
    "torch sparse": (torch.zeros(SHAPE).to_sparse(), "is a Tensor that can't be .*CPU's memory"),
    "torch meta": (torch.zeros(SHAPE, device="meta"), "is a Tensor that can't be read"),
    "torch complex": (torch.zeros(SHAPE, dtype=torch.complex64).conj(), "is complex64"),
    "torch int8": (torch.zeros(SHAPE, dtype=torch.int8), "is int8"),
}


@pytest.mark.parametrize("value, message", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(value, message):
    with pytest.raises(BitencError, match=rf"^input 'x': {message}"):
        read(value)


def test_a_view_of_more_than_memory_holds_is_refused_before_it_is_copied():
    spec = TensorSpec("x", ("batch", 1000), "float32")
    view = np.broadcast_to(np.zeros((1, 1000), np.float32), (1 << 40, 1000))
    tracemalloc.start()
    try:
        with pytest.raises(BitencError, match="has a batch of 1099511627776.*Give it in parts"):
            read(view, spec, largest=1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises(BitencError, match="has an empty batch"):
        read(view[:0], spec)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int64", "float32"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 2)], ids=str)
def test_dtypes_and_ranks_reach_the_network(dtype, shape, module_of):
    def body(builder, x):
        is_true = x if dtype == "bool" else builder.emit(relax.op.astype(x, "bool"))
        one, zero = (relax.const(np.full(shape, v, np.float32)) for v in (1, 0))
        return builder.emit(relax.op.where(is_true, one, zero))

    lib = be.build(module_of([shape], body, dtype), threads=1)
    x = np.asarray(np.arange(np.prod(shape, dtype=int)).reshape(shape) % 2, dtype)
    y = lib(x)
    assert y.shape == shape and np.array_equal(y, x.astype(np.float32))
    other = "uint8" if dtype == "bool" else "bool"
    with pytest.raises(BitencError, match=f"is {other}.*compiled for {dtype}"):
        lib(x.astype(other))


@pytest.mark.parametrize("counts", [dict(number=0), dict(repeat=0), dict(number=-1)], ids=str)
def test_a_benchmark_of_no_runs(counts, module_of):
    lib = be.build(module_of([SHAPE], lambda b, x: b.emit(relax.op.nn.relu(x))), threads=1)
    with pytest.raises(BitencError, match="Use numbers from 1 up"):
        lib.benchmark(X, **counts)
