"""`MultiThreshold` of FINN and QONNX: a quantizer as the list of its thresholds."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto
from tvm import relax

from ...encoding import Encoding
from ...errors import UnsupportedError
from ...op.quantize import quantize
from ...op.reached import reached
from .importer import Converter, Importer
from .model import describe_node

MAX_STEPS = 255  # As many as codes of 8 bits can count.
_LAYOUTS = {2: "NC", 3: "NWC", 4: "NCHW"}  # By rank, where the node doesn't say.


def _multi_threshold(importer: Importer, node: NodeProto) -> None:
    """``out_scale * count + out_bias``: the count of thresholds t of the channel with x >= t."""
    where = describe_node(node)
    attributes = importer.attributes(node)
    attributes.get("out_dtype")  # A wish of FINN's code generator; the numbers are the same.
    x, shape = importer.expression(node.input[0]), importer.shape(node.input[0])
    axis = _channel_axis(attributes, len(shape))
    thresholds = _thresholds(importer, node, shape[axis] if axis < len(shape) else None)
    emit = importer.builder.emit
    if str(x.ty.dtype) in ("int8", "uint8"):
        x = emit(relax.op.astype(x, "float32"))
    if str(x.ty.dtype) != "float32":
        raise UnsupportedError(where, f"its input is {x.ty.dtype}", "Use float32")
    count = emit(reached(x, thresholds, axis))
    codes = Encoding(len(thresholds).bit_length(), 1.0, 0.0, max_code=len(thresholds))
    real = emit(quantize(count, codes, layer=node.name), node.name)  # Changes nothing.
    for op, name, neutral in (
        (relax.op.multiply, "out_scale", 1.0),
        (relax.op.add, "out_bias", 0.0),
    ):
        value = np.float32(attributes.get(name, neutral))
        if not np.isfinite(value):
            raise UnsupportedError(where, f"has {name} = {value}", "Export it again")
        if value != neutral:
            real = emit(op(real, relax.const(value)), node.name)
    importer.define(node, real)


def _channel_axis(attributes: dict, rank: int) -> int:
    layout = attributes.get("data_layout", b"").decode("utf-8", "replace") or _LAYOUTS.get(rank, "")
    return layout.index("C") if "C" in layout else 1


def _thresholds(importer: Importer, node: NodeProto, channels: object) -> np.ndarray:
    """Thresholds as the op has them: (steps, channels), rising."""
    where = describe_node(node)
    found = importer.parameter(node, 1, "matrix of thresholds").astype(np.float32)
    if not isinstance(channels, int) or found.ndim != 2 or found.shape[0] not in (1, channels):
        raise UnsupportedError(
            where,
            f"has thresholds {found.shape} for {channels} channels",
            "Give one row, or one per channel",
        )
    if not 1 <= found.shape[1] <= MAX_STEPS or np.isnan(found).any():
        raise UnsupportedError(
            where, f"has {found.shape[1]} thresholds, or NaN", f"Use 1 to {MAX_STEPS} of them"
        )
    return np.sort(np.broadcast_to(found, (channels, found.shape[1])), axis=1).T.copy()


CONVERTERS: dict[str, Converter] = {"MultiThreshold": _multi_threshold}
