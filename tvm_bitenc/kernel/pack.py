"""Codes, a byte for each channel, to planes: a vector of channels at a time."""

from __future__ import annotations

import math

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from ..encoding import WORD_BITS
from .isa import Isa
from .kernel import Kernel
from .tir import Expr, Register, Vector, constant, flat, load, reinterpret
from .transpose import planes_of_bytes

CHUNK = 64  # Pixels to a task.


def pack_kernel(shape: tuple, bits: int, isa: Isa, parallel: bool) -> Kernel:
    """Return the kernel of `bitenc.pack`.

    Parameters
    ----------
    shape : (..., channels)
        Of the codes, uint8.
    bits : int
    isa : Isa
    parallel : bool
    """
    channels, pixels = shape[-1], math.prod(shape[:-1])
    words = -(-channels // WORD_BITS)
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        source = T.arg("codes", T.buffer(shape, "uint8"))
        out = T.arg("planes", T.buffer((*shape[:-1], bits, words), "uint64"))
        # TVM looks for a root block in what might be a reshape, an input as large as the output.
        with T.sblock("root"):
            codes = flat(source, pixels * channels, "uint8")
            target = flat(out, pixels * bits * words, "uint64")
            loop = T.parallel if parallel else T.serial
            with loop(0, (pixels + CHUNK - 1) // CHUNK) as chunk, T.serial(0, CHUNK) as inner:
                pixel = T.Bind(chunk * CHUNK + inner)
                with T.If(pixel < pixels), T.Then():
                    for word in range(words):
                        start = pixel * channels + word * WORD_BITS
                        octets = _octets(codes, start, min(channels - word * WORD_BITS, WORD_BITS))
                        for bit, plane in enumerate(_planes(octets, bits, isa)):
                            T.buffer_store(target, plane, [(pixel * bits + bit) * words + word])
    return Kernel(builder.get(), [])


def _octets(codes: tirx.Buffer, start: Expr, count: int) -> Register:
    """Codes of up to a word of channels, those that aren't there 0."""
    octets = Register("uint8", WORD_BITS)
    if count == WORD_BITS:
        octets.set(load(codes, start, WORD_BITS))
        return octets
    octets.clear()
    with T.serial(0, count) as channel:
        octets.put(codes[start + channel], channel)
    return octets


def _planes(octets: Register, bits: int, isa: Isa) -> list[Vector]:
    """One word of each plane."""
    if isa.has_bit_matrices and isa.vector_bytes == WORD_BITS:
        planes = planes_of_bytes(isa, T.Bind(octets.get()))
        return [tirx.Shuffle([planes], [bit]) for bit in range(bits)]
    n = min(isa.vector_bytes, WORD_BITS)
    parts = [T.Bind(octets.part(first, n)) for first in range(0, WORD_BITS, n)]
    return [_plane(parts, bit, n) for bit in range(bits)]


def _plane(parts: list[Vector], bit: int, lanes: int) -> Vector:
    """One bit of each code, as one word."""
    word = None
    for i, part in enumerate(parts):
        is_set = (part & constant(1 << bit, "uint8", lanes)) != constant(0, "uint8", lanes)
        value = tirx.Cast("uint64", reinterpret(f"uint{lanes}", is_set))
        value = value if i == 0 else value << tirx.const(i * lanes, "uint64")
        word = value if word is None else word | value
    return word
