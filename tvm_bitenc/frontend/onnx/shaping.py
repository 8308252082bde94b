"""Operators that rearrange, cut and join tensors, whose shapes are known at import."""

from __future__ import annotations

import math

import numpy as np
from onnx import NodeProto, helper
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax import op

from ...errors import UnsupportedError
from .constants import MAX_ELEMENTS, literal
from .importer import Converter, Importer
from .model import describe_node


def axis_of(node: NodeProto, axis: int, rank: int, past: int = 0) -> int:
    """Return an axis counted from the front; refuse one outside of a rank."""
    if not -rank <= axis < rank + past:
        raise UnsupportedError(
            describe_node(node), f"has axis {axis} of {rank} axes", "Export the model again"
        )
    return axis + rank if axis < 0 else axis


def axes_of(importer: Importer, node: NodeProto, index: int, rank: int) -> list[int] | None:
    """Axes of a node, an attribute or, in later operator sets, a constant input; None if none."""
    values = _axes(importer, node, index)
    if values is None:
        return None
    axes = [axis_of(node, axis, rank) for axis in values]
    if len(set(axes)) != len(axes):
        raise UnsupportedError(describe_node(node), "names an axis twice", "Export it again")
    return axes


def _axes(importer: Importer, node: NodeProto, index: int) -> list[int] | None:
    attributes = importer.attributes(node)
    if "axes" in attributes:
        return list(attributes["axes"])
    if index < len(node.input) and node.input[index]:
        return importer.parameter(node, index, "axes").reshape(-1).tolist()
    return None


def fixed_shape(importer: Importer, node: NodeProto, index: int = 0) -> list[int]:
    """Sizes of an input; refuse those that aren't fixed."""
    sizes = importer.shape(node.input[index])
    if not all(isinstance(size, int) for size in sizes):
        raise UnsupportedError(
            describe_node(node), "has an input of a dynamic shape", "Import with fixed shapes"
        )
    return sizes


def is_fixed(importer: Importer, name: str) -> bool:
    """Whether all sizes of a tensor are integers."""
    return all_int(importer.shape(name))


def check_size(node: NodeProto, sizes: list[int]) -> None:
    """Refuse an output that a small file asks to be very large."""
    if math.prod(max(size, 1) for size in sizes) > MAX_ELEMENTS:
        raise UnsupportedError(
            describe_node(node), f"makes a tensor of the shape {tuple(sizes)}", "Use a smaller one"
        )


def _identity(importer: Importer, node: NodeProto) -> None:
    """Let the output be known as the input is: constant, codes of a quantizer, or a sequence."""
    importer.alias(node.input[0], node.output[0])


def _dropout(importer: Importer, node: NodeProto) -> None:
    """Nothing is dropped outside of training; the mask then is all true."""
    attributes = importer.attributes(node)
    attributes.get("ratio"), attributes.get("seed")
    training = len(node.input) > 2 and node.input[2]
    if training and importer.parameter(node, 2, "training mode").any():
        ratio = 0.5 if not node.input[1] else importer.parameter(node, 1, "ratio").item()
        if ratio:
            raise UnsupportedError(
                describe_node(node), "drops elements at random", "Export the model in eval mode"
            )
    if len(node.input) > 1 and node.input[1]:
        importer.read_inputs.add(node.input[1])  # It doesn't matter.
    _identity(importer, node)
    if len(node.output) > 1 and node.output[1]:
        shape = fixed_shape(importer, node)
        importer.constants[node.output[1]] = np.ones(shape, bool)


def _reshape(importer: Importer, node: NodeProto) -> None:
    sizes, wanted = importer.shape(node.input[0]), importer.parameter(node, 1, "shape").tolist()
    keeps_zero = importer.attributes(node).get("allowzero", 0)
    copied = [
        sizes[i] if size == 0 and not keeps_zero and i < len(sizes) else size
        for i, size in enumerate(wanted)
    ]
    if all_int([*sizes, *copied]) and -1 in copied:
        known = math.prod(size for size in copied if size != -1)
        copied[copied.index(-1)] = math.prod(sizes) // known if known else 0
    if all_int([*sizes, *copied]) and (
        math.prod(sizes) != math.prod(copied) or min(copied, default=0) < 0
    ):
        raise UnsupportedError(
            describe_node(node), f"makes {wanted} of {sizes}", "Export the model again"
        )
    importer.define(node, op.reshape(importer.expression(node.input[0]), copied))


def _flatten(importer: Importer, node: NodeProto) -> None:
    sizes = importer.shape(node.input[0])
    axis = axis_of(node, importer.attributes(node)["axis"], len(sizes), past=1)
    rows = math.prod(sizes[:axis])
    columns = math.prod(sizes[axis:])
    importer.define(node, op.reshape(importer.expression(node.input[0]), (rows, columns)))


def _transpose(importer: Importer, node: NodeProto) -> None:
    rank = len(importer.shape(node.input[0]))
    order = importer.attributes(node).get("perm")
    order = list(range(rank))[::-1] if order is None else list(order)
    if sorted(order) != list(range(rank)):
        raise UnsupportedError(describe_node(node), f"has perm {order}", "Export the model again")
    x = importer.expression(node.input[0])
    importer.define(node, op.permute_dims(x, order) if rank else x)


def _squeeze(importer: Importer, node: NodeProto) -> None:
    sizes = importer.shape(node.input[0])
    axes = axes_of(importer, node, 1, len(sizes))
    if axes is None:
        axes = [i for i, size in enumerate(fixed_shape(importer, node)) if size == 1]
    if any(isinstance(sizes[axis], int) and sizes[axis] != 1 for axis in axes):
        raise UnsupportedError(describe_node(node), f"drops {axes} of {sizes}", "Export it again")
    kept = [size for i, size in enumerate(sizes) if i not in axes]
    x = importer.expression(node.input[0])
    importer.define(node, op.reshape(x, kept) if all_int(sizes) else op.squeeze(x, axes))


def _unsqueeze(importer: Importer, node: NodeProto) -> None:
    sizes = importer.shape(node.input[0])
    count = len(_axes(importer, node, 1) or ())
    axes = axes_of(importer, node, 1, len(sizes) + count)
    if axes is None:
        raise UnsupportedError(describe_node(node), "has no axes", "Export the model again")
    rest = iter(sizes)
    result = [1 if i in axes else next(rest) for i in range(len(sizes) + count)]
    importer.define(node, op.reshape(importer.expression(node.input[0]), result))


def all_int(sizes: list) -> bool:
    """Whether all of some sizes are integers."""
    return all(isinstance(size, int) for size in sizes)


def _expand(importer: Importer, node: NodeProto) -> None:
    sizes = importer.shape(node.input[0])
    wanted = importer.parameter(node, 1, "shape").tolist()
    rank = max(len(sizes), len(wanted))
    sizes = [1] * (rank - len(sizes)) + sizes
    wanted = [1] * (rank - len(wanted)) + wanted
    result = [a if b == 1 else b for a, b in zip(sizes, wanted)]
    if any(isinstance(a, int) and a != 1 and b not in (1, a) for a, b in zip(sizes, wanted)):
        raise UnsupportedError(
            describe_node(node), f"expands {sizes} to {wanted}", "Export the model again"
        )
    if all_int(result):
        check_size(node, result)
    importer.define(node, op.broadcast_to(importer.expression(node.input[0]), result))


def _concat(importer: Importer, node: NodeProto) -> None:
    parts = [importer.expression(name) for name in node.input]
    rank = len(importer.shape(node.input[0]))
    axis = axis_of(node, importer.attributes(node)["axis"], rank)
    importer.define(node, parts[0] if len(parts) == 1 else op.concat(parts, axis))


def split_sizes(importer: Importer, node: NodeProto, size: int) -> list[int]:
    """Sizes of the outputs of a Split of an axis."""
    attributes, count = importer.attributes(node), len(node.output)
    if "split" in attributes:
        sizes = list(attributes["split"])
    elif len(node.input) > 1 and node.input[1]:
        sizes = importer.parameter(node, 1, "split").tolist()
    else:
        stated = attributes.get("num_outputs", count)
        part = -(-size // count) if importer.opset >= 18 else size // count
        sizes = [part] * (count - 1) + [size - part * (count - 1)]
        if stated != count or (importer.opset < 18 and size % count):
            sizes = []
    if len(sizes) != count or sum(sizes) != size or any(part < 1 for part in sizes):
        raise UnsupportedError(
            describe_node(node), f"splits {size} into {count} parts {sizes}", "Export it again"
        )
    return sizes


def _split(importer: Importer, node: NodeProto) -> None:
    shape = importer.shape(node.input[0])
    axis = axis_of(node, importer.attributes(node)["axis"], len(shape))
    if not isinstance(shape[axis], int):
        raise UnsupportedError(
            describe_node(node), "splits an axis of a dynamic size", "Import with fixed shapes"
        )
    sizes = split_sizes(importer, node, shape[axis])
    if len(sizes) == 1:
        return importer.define(node, importer.expression(node.input[0]))
    ends = np.cumsum(sizes)[:-1].tolist()
    parts = importer.builder.emit(op.split(importer.expression(node.input[0]), ends, axis))
    for i, output in enumerate(node.output):
        if output:
            importer.define(node, relax.TupleGetItem(parts, i), i)
    return None


def _slice(importer: Importer, node: NodeProto) -> None:
    sizes = importer.shape(node.input[0])
    starts, ends, axes, steps = _slice_parameters(importer, node, len(sizes))
    cuts: list[tuple[int, int, int, int]] = []  # Axis, begin, end and stride of each.
    x = importer.expression(node.input[0])
    for axis, first, last, step in zip(axes, starts, ends, steps):
        size = sizes[axis]
        if step == 0:
            raise UnsupportedError(describe_node(node), "has a step of 0", "Export it again")
        if not isinstance(size, int):
            if (first, step) == (0, 1) and last >= 2**31 - 1:
                continue
            raise UnsupportedError(
                describe_node(node), "cuts an axis of a dynamic size", "Import with fixed shapes"
            )
        indices = range(size)[slice(first, last if last >= -size or step > 0 else None, step)]
        if not indices:
            raise UnsupportedError(describe_node(node), "keeps nothing", "Export it again")
        if step < 0:  # Relax has no bound that says: down to the first, included.
            x = importer.builder.emit(op.take(x, literal(np.array(indices)), axis, mode="clip"))
        else:
            cuts.append((axis, indices[0], indices[-1] + 1, step))
    importer.define(node, op.strided_slice(x, *map(list, zip(*cuts))) if cuts else x)


def _slice_parameters(importer: Importer, node: NodeProto, rank: int) -> tuple[list, ...]:
    if importer.opset < 10:
        attributes = importer.attributes(node)
        starts, ends = list(attributes["starts"]), list(attributes["ends"])
        axes = list(attributes.get("axes") or range(len(starts)))
        steps = [1] * len(starts)
    else:
        starts, ends = (
            importer.parameter(node, i, n).tolist() for i, n in ((1, "starts"), (2, "ends"))
        )
        axes, steps = (
            importer.parameter(node, i, name).tolist()
            if i < len(node.input) and node.input[i]
            else default
            for i, name, default in (
                (3, "axes", [*range(len(starts))]),
                (4, "steps", [1] * len(starts)),
            )
        )
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise UnsupportedError(
            describe_node(node), "has lists of unlike lengths", "Export it again"
        )
    return starts, ends, [axis_of(node, axis, rank) for axis in axes], steps


def _depth_to_space(importer: Importer, node: NodeProto) -> None:
    attributes, (n, c, h, w) = importer.attributes(node), importer.shape(node.input[0])
    size, mode = attributes["blocksize"], "DCR"
    if importer.opset >= 11:
        mode = attributes.text("mode")
    if size < 1 or c % size**2 or mode not in ("DCR", "CRD"):
        raise UnsupportedError(
            describe_node(node), f"makes blocks of {size} in mode {mode} of {c} channels", "Use DCR"
        )
    depth = c // size**2
    x = importer.expression(node.input[0])
    if mode == "DCR":
        x, order = op.reshape(x, (n, size, size, depth, h, w)), (0, 3, 4, 1, 5, 2)
    else:
        x, order = op.reshape(x, (n, depth, size, size, h, w)), (0, 1, 4, 2, 5, 3)
    importer.define(node, op.reshape(op.permute_dims(x, order), (n, depth, h * size, w * size)))


def _space_to_depth(importer: Importer, node: NodeProto) -> None:
    size, (n, c, h, w) = importer.attributes(node)["blocksize"], importer.shape(node.input[0])
    if size < 1 or h % size or w % size:
        raise UnsupportedError(
            describe_node(node), f"makes blocks of {size} of {h} x {w}", "Export the model again"
        )
    x = op.reshape(importer.expression(node.input[0]), (n, c, h // size, size, w // size, size))
    x = op.permute_dims(x, (0, 3, 5, 1, 2, 4))
    importer.define(node, op.reshape(x, (n, c * size**2, h // size, w // size)))


def _eye_like(importer: Importer, node: NodeProto) -> None:
    attributes, (rows, columns) = importer.attributes(node), fixed_shape(importer, node)
    stated = attributes.get("dtype")
    dtype = (
        importer.dtype(node.input[0]) if stated is None else helper.tensor_dtype_to_np_dtype(stated)
    )
    importer.constants[node.output[0]] = np.eye(rows, columns, attributes["k"], dtype)


def _trilu(importer: Importer, node: NodeProto) -> None:
    """Keep one side of a diagonal; the other becomes 0."""
    sizes, x = fixed_shape(importer, node), importer.expression(node.input[0])
    is_upper = importer.attributes(node)["upper"]
    dtype = importer.dtype(node.input[0])
    zero = literal(np.zeros((), dtype))
    rows, columns = np.arange(sizes[-2])[:, None], np.arange(sizes[-1])[None, :]
    distance = (columns - rows).astype(np.int64)
    if len(node.input) < 2 or not node.input[1] or node.input[1] in importer.constants:
        k = int(importer.parameter(node, 1, "k").item()) if len(node.input) > 1 else 0
        mask: relax.Expr = literal(distance >= k if is_upper else distance <= k)
    else:
        k = op.reshape(importer.expression(node.input[1]), ())
        mask = (op.greater_equal if is_upper else op.less_equal)(literal(distance), k)
    importer.define(node, op.where(mask, x, zero))


def _reverse_sequence(importer: Importer, node: NodeProto) -> None:
    """Turn the first elements of each sequence of a batch around, as many as it says."""
    attributes, sizes = importer.attributes(node), fixed_shape(importer, node)
    time = axis_of(node, attributes["time_axis"], len(sizes))
    batch = axis_of(node, attributes["batch_axis"], len(sizes))
    if {time, batch} != {0, 1}:
        raise UnsupportedError(
            describe_node(node), f"has axes {time} and {batch}", "Use 0 and 1, one of each"
        )
    lengths = importer.expression(node.input[1])
    if importer.dtype(node.input[1]) != "int64":
        lengths = op.astype(lengths, "int64")
    lengths = op.reshape(lengths, (1, -1) if batch else (-1, 1))
    steps = literal(np.arange(sizes[time]).reshape((-1, 1) if batch else (1, -1)))
    index = op.where(
        op.less(steps, lengths), op.subtract(op.subtract(lengths, _one()), steps), steps
    )
    index = op.reshape(index, (*sizes[:2], *[1] * (len(sizes) - 2)))
    index = importer.builder.emit(op.broadcast_to(index, sizes))
    importer.define(node, op.gather_elements(importer.expression(node.input[0]), index, time))


def _one() -> GenericConst:
    return literal(np.int64(1))


CONVERTERS: dict[str, Converter] = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Dropout": _dropout,
    "Expand": _expand,
    "EyeLike": _eye_like,
    "Flatten": _flatten,
    "Identity": _identity,
    "Reshape": _reshape,
    "ReverseSequence": _reverse_sequence,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
