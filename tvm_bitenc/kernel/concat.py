"""Images in bytes joined along channels: pixel by pixel, a vector at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from .isa import Isa
from .kernel import Kernel
from .tir import flat, load, load_some, store, store_some


def concat_kernel(shapes: Sequence[tuple], isa: Isa, parallel: bool) -> Kernel:
    """Return the kernel of `bitenc.bytes_concat`.

    Parameters
    ----------
    shapes : sequence of (batch, height, width, channels)
        Of the parts, uint8.
    isa : Isa
    parallel : bool
    """
    channels, outer = [shape[-1] for shape in shapes], shapes[0][:-1]
    pixels, total, lanes = math.prod(outer), sum(channels), isa.vector_bytes
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        sources = [T.arg(f"part{i}", T.buffer(s, "uint8")) for i, s in enumerate(shapes)]
        out = T.arg("out", T.buffer((*outer, total), "uint8"))
        with T.sblock("root"):
            parts = [flat(s, pixels * c, "uint8") for s, c in zip(sources, channels)]
            target = flat(out, pixels * total, "uint8")
            with (T.parallel if parallel else T.serial)(0, pixels) as pixel:
                first = 0
                for part, count in zip(parts, channels):
                    source, place = T.Bind(pixel * count), T.Bind(pixel * total + first)
                    whole, rest = divmod(count, lanes)
                    with T.serial(0, whole) as i:
                        octets = load(part, source + i * lanes, lanes)
                        store(target, octets, place + i * lanes, lanes)
                    if rest:
                        done = whole * lanes
                        some = load_some(part, source + done, rest, lanes)
                        store_some(target, some, place + done, rest, lanes)
                    first += count
    return Kernel(builder.get(), [])
