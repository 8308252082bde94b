"""What depends on constants alone is computed by the reference operators of the onnx package."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import NodeProto, helper
from onnx.reference import ReferenceEvaluator
from tvm import relax
from tvm.ir import GenericConst

from ...errors import UnsupportedError, first_line
from .model import describe_node

# Ops that choose or rearrange elements: a grid of quantized weights goes with them.
MOVING = frozenset(
    ("Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose")
).union(("Unsqueeze",))
# Cheap and exact, or as good as: shape arithmetic, and the scales that trainers leave in a graph.
FOLDABLE = MOVING.union(
    ("Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Clip", "Concat", "Constant"),
    ("ConstantOfShape", "Div", "Equal", "Exp", "Expand", "Floor", "Greater", "GreaterOrEqual"),
    ("Less", "LessOrEqual", "Log", "Max", "Min", "Mod", "Mul", "Neg", "NonZero", "Not", "Or"),
    ("Pad", "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"),
    ("ReduceSum", "Relu", "Round", "Sign", "Size", "Sqrt", "Sub", "Sum", "Tile", "Where"),
)
MAX_ELEMENTS = 2**27  # Of a folded tensor: a small file must not ask for all memory.


def fold(
    node: NodeProto, arrays: Sequence[np.ndarray | None], opset: int
) -> dict[str, np.ndarray] | None:
    """Outputs of a node whose inputs are all constant, by name; None for ops that aren't folded.

    For the rest see `computed`.
    """
    return computed(node, arrays, opset) if node.op_type in FOLDABLE else None


def computed(
    node: NodeProto, arrays: Sequence[np.ndarray | None], opset: int
) -> dict[str, np.ndarray]:
    """Outputs of a node of `FOLDABLE`, by name; those that it leaves out have none.

    Parameters
    ----------
    node : onnx.NodeProto
    arrays : sequence of ndarray or None
        Inputs; None for an optional one that is left out.
    opset : int

    Raises
    ------
    UnsupportedError
        If the op fails on these inputs, or its output would be very large.
    """
    try:
        if _elements(node, arrays) > MAX_ELEMENTS:
            raise ValueError(f"its result has more than {MAX_ELEMENTS} elements")
        with np.errstate(all="ignore"):
            return _evaluate(node, arrays, opset)
    except Exception as error:  # The reference operators raise whatever numpy does.
        raise UnsupportedError(
            describe_node(node), f"can't be computed: {first_line(error)}", "Check its inputs"
        ) from error


def _evaluate(
    node: NodeProto, arrays: Sequence[np.ndarray | None], opset: int
) -> dict[str, np.ndarray]:
    feeds = {name: array for name, array in zip(node.input, arrays) if array is not None}
    inputs = [helper.make_empty_tensor_value_info(name) for name in feeds]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "fold", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    found = ReferenceEvaluator(model).run(None, feeds)
    return {output.name: np.asarray(value) for output, value in zip(outputs, found)}


def _elements(node: NodeProto, arrays: Sequence[np.ndarray | None]) -> int:
    """Bound on the elements of the output, for ops that can make much of little."""
    given = [array for array in arrays if array is not None]
    sizes = [max(array.size, 1) for array in given]
    if node.op_type in ("ConstantOfShape", "Expand", "Tile"):
        times = math.prod([int(abs(n)) or 1 for n in given[-1].reshape(-1)])
        return times * (1 if node.op_type == "ConstantOfShape" else sizes[0])
    if node.op_type == "Range":
        start, limit, delta = (float(array.reshape(-1)[0]) for array in given)
        return 0 if delta == 0 else max(0, math.ceil((limit - start) / delta))
    if node.op_type == "Pad":
        pads = given[1] if len(given) > 1 else np.array(_attribute(node, "pads", [0]))
        longest = max(given[0].shape, default=1) + 2 * int(np.abs(pads).max(initial=0))
        return longest ** max(given[0].ndim, 1)
    return math.prod(sizes) if node.op_type == "Gather" else _broadcast(given)


def _broadcast(arrays: Sequence[np.ndarray]) -> int:
    """Elements of the arrays side by side, each axis at its longest."""
    shapes = [array.shape for array in arrays]
    ranks = max(map(len, shapes), default=0)
    padded = [(1,) * (ranks - len(shape)) + shape for shape in shapes]
    return math.prod(max(sizes) for sizes in zip(*padded)) if padded else 1


def _attribute(node: NodeProto, name: str, default: list[int]) -> list[int]:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def literal(value: ArrayLike) -> GenericConst:
    """Return an array as Relax has it: of its own dtype, which `relax.const` alone wouldn't keep.

    4-bit integers become 8-bit ones, for Relax has no constants of them.
    """
    array = np.asarray(value)
    name = array.dtype.name
    array = array.astype(name.replace("4", "8")) if name in ("int4", "uint4") else array
    return relax.const(array, array.dtype.name)


def array_of(tensor: onnx.TensorProto, where: str) -> np.ndarray:
    """Value of a stored tensor."""
    try:
        return onnx.numpy_helper.to_array(tensor)
    except Exception as error:  # A wrong length is one of many errors.
        raise UnsupportedError(
            where, f"its value can't be read: {first_line(error)}", "Export the model again"
        ) from error
