"""Where NCHW codes are unpacked planes, and back."""

from __future__ import annotations

from tvm import relax, tirx

from ...op.packed import pack, unpack, unpack_op
from ...op.quantize import encode_op
from ...op.registration import is_call_to
from ..analysis.float32 import op_name
from ..rewrite import Graph

NHWC, NCHW = [0, 2, 3, 1], [0, 3, 1, 2]
# Axes of planes (N, H, W, bits, words) by those of codes (N, C, H, W).
PLANE_AXES = {0: 0, 1: 4, 2: 1, 3: 2}


def unpacked(planes: relax.Expr, channels: int | tirx.IntImm, graph: Graph) -> relax.Expr:
    """Codes NCHW of planes."""
    return relax.op.permute_dims(graph.emit(unpack(planes, int(channels))), NCHW)


def packed_source(codes: relax.Expr, graph: Graph) -> relax.Call | None:
    """Return the `unpack` that NCHW codes come from."""
    permute = graph.definition(codes)
    if op_name(permute) != "relax.permute_dims" or list(permute.attrs.axes or ()) != NCHW:
        return None
    source = graph.definition(permute.args[0])
    return source if is_call_to(source, unpack_op) else None


def planes_of(codes: relax.Expr, bits: int, graph: Graph) -> relax.Expr:
    """Planes of NCHW codes: those that they were unpacked from, else packed anew."""
    source = packed_source(codes, graph)
    if source is not None:
        planes = source.args[0]
        assert int(planes.ty.shape[3]) == bits, "the encoder and the layer disagree on bits"
        return planes
    channels_last = graph.emit(relax.op.permute_dims(codes, NHWC))
    return graph.emit(pack(channels_last, bits))


def bits_of_packable(codes: relax.Expr, graph: Graph) -> int | None:
    """Bits of NCHW codes that are planes, or that are best packed as soon as they are made."""
    source = packed_source(codes, graph)
    if source is not None:
        return int(source.args[0].ty.shape[3])
    encoder = graph.definition(codes)
    is_image = is_call_to(encoder, encode_op) and len(encoder.ty.shape) == 4
    return int(encoder.attrs["bits"]) if is_image else None
