"""Float32 images to planes: compare with every threshold, a vector of channels at a time."""

from __future__ import annotations

import math

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from ..encoding import WORD_BITS
from ..te.threshold import codes_reached, planes_of_reached, reaches
from .isa import Isa
from .kernel import Kernel
from .tir import flat, load, reinterpret, splat

CHUNK = 64  # Pixels to a task.
BYTE = 8  # Bits; planes are stored in whole bytes, from two vectors if one has fewer lanes.


def encode_kernel(
    shape: tuple[int, ...], thresholds: np.ndarray, isa: Isa, parallel: bool
) -> Kernel | None:
    """Return the kernel of `bitenc.packed_encode`; None where channels don't fill vectors.

    Parameters
    ----------
    shape : (batch, height, width, channels)
    thresholds : ndarray of float32, shape (2^bits - 1,)
    isa : Isa
    parallel : bool
    """
    lanes, channels = max(isa.vector_bytes // 4, BYTE), shape[-1]
    if channels % lanes:
        return None
    bits, words = len(thresholds).bit_length(), -(-channels // WORD_BITS)
    pixels, codes = math.prod(shape[:-1]), codes_reached(thresholds).tolist()
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        source = T.arg("x", T.buffer(shape, "float32"))
        steps = T.arg("thresholds", T.buffer(thresholds.shape, "float32"))
        out = T.arg("out", T.buffer((*shape[:-1], bits, words), "uint64"))
        values = flat(source, pixels * channels, "float32")
        octets = flat(out, pixels * bits * words * 8, "uint8")
        target = flat(out, pixels * bits * words * WORD_BITS // lanes, f"uint{lanes}")
        loop = T.parallel if parallel else T.serial
        with loop(0, (pixels + CHUNK - 1) // CHUNK) as chunk, T.serial(0, CHUNK) as inner:
            pixel = T.Bind(chunk * CHUNK + inner)
            with T.If(pixel < pixels), T.Then():
                with T.serial(0, channels // lanes) as part:
                    value = T.Bind(load(values, pixel * channels + part * lanes, lanes))
                    reached = []
                    for step in (code - 1 for code in codes):
                        bits_of = reaches(value, thresholds[step], splat(steps[step], lanes))
                        reached.append(T.Bind(reinterpret(f"uint{lanes}", bits_of)))
                    for bit, plane in enumerate(planes_of_reached(reached, codes)):
                        start = (pixel * bits + bit) * (words * WORD_BITS // lanes) + part
                        T.buffer_store(target, plane, [start])
                rest = words * 8 - channels // 8
                if rest:
                    with T.grid(bits, rest) as (bit, octet):
                        start = ((pixel * bits + bit) * words * 8) + channels // 8 + octet
                        T.buffer_store(octets, tirx.const(0, "uint8"), [start])
    return Kernel(builder.get(), [])
