"""ONNX to Relax: QDQ and QONNX quantizers become `bitenc.quantize`, exactly.

==================  =====================================================================
`model.py`          loads, checks, fixes the input shapes
`walk.py`           the table of converters; walks the nodes; the rest is TVM's importer's
`importer.py`       what is known of each tensor while nodes are converted
`constants.py`      folds what depends on constants alone, shapes included
`grid.py`           the grid that a quantizer rounds to, as ONNX and QONNX describe it
`qonnx.py`          `Quant`, `BipolarQuant`, `Trunc`
`qdq.py`            `QuantizeLinear`, `DequantizeLinear`
`codes.py`          integer tensors of which the real numbers behind are known
`integer.py`        products of integers: `ConvInteger`, `MatMulInteger`
`qlinear.py`        operators on int8: `QLinearConv` and the like
`dynamic.py`        scales that come at run time: `DynamicQuantizeLinear`
`finn.py`           `MultiThreshold`
`sizes.py`          arithmetic on the size of a dynamic batch
`layers.py`         layers whose spelling by TVM's importer later passes couldn't read
==================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import BitencError

if TYPE_CHECKING:
    import onnx
    import tvm


def from_onnx(
    path_or_model_proto: str | Path | onnx.ModelProto,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> tvm.IRModule:
    """Import an ONNX model with QDQ or QONNX quantizers, or a float one.

    Parameters
    ----------
    path_or_model_proto : str, Path or onnx.ModelProto
        Operator sets 7 to 21, `qonnx.custom_op.general` and `onnx.brevitas`.
    shapes : mapping of str to sequence of int, optional
        Shape of each input that is dynamic, by name, e.g. ``{"x": (1, 3, 160, 160)}``. A batch
        size, axis 0, may stay dynamic.

    Returns
    -------
    tvm.IRModule
        With a function `main`, weights bound in, float32 in and out. Layers are named after their
        nodes.

    Raises
    ------
    UnsupportedError
        For what can't be imported exactly; the message names the node.
    BitencError
        If onnx isn't installed, or the file is no valid ONNX model.
    """
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise BitencError(
            "from_onnx", "onnx isn't installed", "pip install 'tvm-bitenc[onnx]'"
        ) from None
    from .model import load, prepared
    from .walk import import_model

    return import_model(prepared(load(path_or_model_proto), shapes or {}))
