"""What a converter gives, checked against what torch says of the node: its fake tensors."""

from __future__ import annotations

import torch
from torch.fx import Node
from tvm import relax, sym, tirx
from tvm.ir import Expr

from ...errors import UnsupportedError
from .names import where_of
from .sizes import Sizes

CURE = "Report it, and write that part of the model in other operators"
DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.float16: "float16",
    torch.int8: "int8",
    torch.int16: "int16",
    torch.int32: "int32",
    torch.int64: "int64",
    torch.uint8: "uint8",
    torch.uint16: "uint16",
    torch.uint32: "uint32",
    torch.uint64: "uint64",
    torch.bool: "bool",
}


def dtype_of(tensor: torch.Tensor, where: str) -> str:
    """TVM's name of a tensor's dtype.

    Raises
    ------
    UnsupportedError
        For bfloat16, complex and quantized tensors, and those that aren't strided.
    """
    if tensor.layout != torch.strided:
        raise UnsupportedError(where, f"is a tensor of layout {tensor.layout}", "Use dense tensors")
    if tensor.dtype not in DTYPES:
        raise UnsupportedError(where, f"has dtype {tensor.dtype}", "Use float32, integers, bool")
    return DTYPES[tensor.dtype]


def check_result(node: Node, result: object, sizes: Sizes) -> None:
    """Compare number, dtypes and shapes of a node's results with torch's.

    Raises
    ------
    UnsupportedError
        If they differ.
    """
    where, expected = where_of(node), node.meta.get("val")
    if isinstance(expected, (list, tuple)):
        fields = result if isinstance(result, (list, tuple)) else [result]
        if len(fields) != len(expected):
            raise UnsupportedError(
                where, f"has {len(fields)} results here and {len(expected)} in torch", CURE
            )
        for i, (field, value) in enumerate(zip(fields, expected)):
            if field is not None:
                _check_tensor(f"result {i} of {where}", field, value, sizes)
    else:
        _check_tensor(where, result, expected, sizes)


def _check_tensor(where: str, result: object, expected: object, sizes: Sizes) -> None:
    if not isinstance(expected, torch.Tensor):
        return
    dtype, shape = dtype_of(expected, where), sizes.shape(expected)
    ty = result.ty if isinstance(result, relax.Expr) else None
    if not isinstance(ty, relax.TensorType) or ty.shape is None:
        raise UnsupportedError(where, "has no known shape", CURE)
    if str(ty.dtype) != dtype:
        raise UnsupportedError(where, f"is {ty.dtype} here and {dtype} in torch", CURE)
    if len(ty.shape) != len(shape) or not all(map(_equal, ty.shape, shape)):
        raise UnsupportedError(where, f"has shape {list(ty.shape)} here and {shape} in torch", CURE)


def _equal(a: int | Expr, b: int | Expr) -> bool:
    if isinstance(a, tirx.IntImm) and isinstance(b, int):
        return a.value == b
    return sym.Analyzer().can_prove_equal(a, b)
