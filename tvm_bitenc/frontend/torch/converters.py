"""Ops that TVM's importer doesn't know, or takes in another way than torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.fx import Node
from tvm import relax

from ...encoding import Encoding
from ...errors import UnsupportedError
from ...op.multiply_add import multiply_add
from ...op.quantize import quantize
from .fake_quantize import FAKE_QUANTIZE
from .names import layer_name


def refuse_training(node: Node, _importer) -> relax.Var:
    """Refuse an op that behaves otherwise in training."""
    raise UnsupportedError(
        f"{node.target.__name__.split('.')[0]} of layer {layer_name(node)!r}",
        "is in training mode",
        "Export the model after model.eval()",
    )


def bitenc_quantize(node: Node, importer) -> relax.Var:
    """`bitenc::bitenc_quantize`, as the layers of `tvm_bitenc.nn` call it."""
    x, scale, zero_point, bits, axis, rounding = importer.retrieve_args(node)
    # Scale and zero point are tensors of the graph; the encoding is here for its attributes.
    encoding = Encoding(int(bits), 1.0, 0.0, rounding=str(rounding))
    call = quantize(x, encoding, int(axis), layer_name(node))
    return importer.block_builder.emit(relax.Call(call.op, [x, scale, zero_point], call.attrs))


def batch_norm(node: Node, importer) -> relax.Var:
    """Batch-norm in eval mode as torch computes it on every vector CPU: x * alpha + beta.

    ``alpha = gamma * (1 / sqrt(var + eps))`` and ``beta = bias - mean * alpha``, in float32, and
    both products with a sum are rounded once: torch's kernel is compiled with such instructions.
    """
    x, gamma, bias, mean, variance, *rest = importer.retrieve_args(node)
    training = node.target.__name__ == "batch_norm.default" and rest[0]
    if training:
        refuse_training(node, importer)
    eps = float(rest[-1] if "no_training" in node.target.__name__ else rest[2])
    emit, one = importer.block_builder.emit, relax.const(1.0, "float32")
    deviation = emit(relax.op.sqrt(emit(relax.op.add(variance, relax.const(eps, "float32")))))
    alpha = emit(relax.op.divide(one, deviation))
    if gamma is not None:
        alpha = emit(relax.op.multiply(alpha, gamma))
    if bias is None:
        bias = relax.const(np.zeros(int(mean.ty.shape[0]), np.float32))
    beta = emit(multiply_add(emit(relax.op.negative(mean)), alpha, bias))
    shape = (1, -1, *[1] * (len(x.ty.shape) - 2))
    result = emit(
        multiply_add(x, *(emit(relax.op.reshape(factor, shape)) for factor in (alpha, beta)))
    )
    if node.target.__name__.startswith("_native"):
        return emit(relax.Tuple([result]))
    return result


def upsample_nearest(node: Node, importer) -> relax.Var:
    """Nearest pixels, whichever torch takes: TVM's importer takes others for uneven factors.

    Torch's own op is asked, on an image of row and column numbers.
    """
    x = importer.env[node.args[0]]
    height, width = (int(size) for size in list(x.ty.shape)[2:])
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    numbers = torch.stack([rows, columns])[None].float()
    (rows, columns) = node.target(numbers, *node.args[1:], **node.kwargs)[0].numpy()
    for axis, taken in ((2, rows[:, 0]), (3, columns[0])):
        indices = relax.const(taken.astype(np.int64))
        x = importer.block_builder.emit(relax.op.take(x, indices, axis))
    return x


CONVERTERS: dict[str, Callable] = {
    "bitenc_quantize.default": bitenc_quantize,
    "batch_norm.default": batch_norm,
    "_native_batch_norm_legit_no_training.default": batch_norm,
    "_native_batch_norm_legit_functional.default": refuse_training,
    "native_dropout.default": refuse_training,
    "upsample_nearest2d.vec": upsample_nearest,
    "upsample_nearest2d.default": upsample_nearest,
    **FAKE_QUANTIZE,
}
