"""How an op of the `bitenc` dialect is made known to Relax."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Op, register_op_attr

from ..errors import BitencError, LibraryError, TargetError, UnsupportedError

# Lets these errors keep their class on their way through TVM's C++ code.
for _error in (BitencError, UnsupportedError, TargetError, LibraryError):
    tvm_ffi.register_error(_error.__name__, _error)


def register_op(
    name: str,
    arguments: Sequence[str],
    infer_type: Callable[[relax.Call], relax.TensorType],
    legalize: Callable[[relax.BlockBuilder, relax.Call], relax.Expr],
) -> Op:
    """Register a pure Relax op.

    Parameters
    ----------
    name : str
        Full name, ``bitenc.*``.
    arguments : sequence of str
        Names of its tensor arguments.
    infer_type : callable
        From a call to the type of its result; raises `UnsupportedError` for a wrong argument.
    legalize : callable
        Lowers one call to TE, unscheduled: it runs anywhere and serves as the op's meaning.
    """
    register_op_attr(name, "FPurity", True)
    op = Op.get(name)
    op.set_num_inputs(len(arguments))
    for argument in arguments:
        op.add_argument(argument, "Tensor", argument)
    register_op_attr(name, "FInferType", lambda call, _builder: infer_type(call))
    register_op_attr(name, "FLegalize", legalize)
    return op


def make_call(op: Op, arguments: Sequence[relax.Expr], **attributes) -> relax.Call:
    """Call `op` with named attributes: integers, strings, or lists of integers."""
    return relax.Call(op, list(arguments), tvm.ir.make_node("ir.DictAttrs", **attributes))


def with_attributes(call: relax.Call, **changes) -> relax.Call:
    """Return the same call with some attributes added or replaced."""
    return make_call(call.op, call.args, **{**dict(call.attrs.items()), **changes})


def is_call_to(expr: relax.Expr, op: Op | str) -> bool:
    """Whether `expr` is a call to `op`."""
    op = Op.get(op) if isinstance(op, str) else op
    return isinstance(expr, relax.Call) and isinstance(expr.op, Op) and expr.op.same_as(op)


def constant_value(expr: relax.Expr) -> np.ndarray | None:
    """Value of a constant, None for any other expression."""
    return expr.value.numpy() if isinstance(expr, tvm.ir.GenericConst) else None


def required_constant(expr: relax.Expr) -> np.ndarray:
    """Value of an operand that must be a constant.

    Raises
    ------
    UnsupportedError
        For any other expression.
    """
    value = constant_value(expr)
    if value is None:
        raise UnsupportedError("operand", "isn't a constant", "Bind the module's parameters first")
    return value


def describe(call: relax.Call) -> str:
    """Name a call as messages do: the op, and the layer it stems from where that is known."""
    attributes = call.attrs if isinstance(call.attrs, tvm.ir.DictAttrs) else {}
    layer = str(attributes.get("layer", "")) if attributes else ""
    name = call.op.name if isinstance(call.op, Op) else "call"
    return f"{name} of layer {layer!r}" if layer else name


def tensor_shape(expr: relax.Expr, dtype: str, where: str) -> list:
    """Shape of a tensor expression, after checking its dtype.

    Raises
    ------
    UnsupportedError
        For another dtype, or a shape of unknown rank.
    """
    ty = expr.ty
    if not isinstance(ty, relax.TensorType) or ty.shape is None:
        raise UnsupportedError(where, "its argument has no known shape", "Fix the input shapes")
    if str(ty.dtype) != dtype:
        raise UnsupportedError(
            where, f"its argument is {ty.dtype}, not {dtype}", f"Cast it to {dtype} before"
        )
    return list(ty.shape)
