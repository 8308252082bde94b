"""Between planes and bytes: from a word of each plane to a byte for each channel, and back.

With an instruction that turns 8 x 8 bits around, all planes of a word of channels go at once::

    words    plane by plane, 8 bytes each     byte g of plane k: channels 8 g .. 8 g + 7
    reorder  bytes (g, 7 - k)                 what the instruction takes
    turn     bytes (g, c)                     the code of channel 8 g + c

Without it, each bit of a word chooses whether its plane's coefficient is added to a byte.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.tirx.script import builder as T

from ..encoding import WORD_BITS, are_positional
from ..layer import ConvLayer
from .isa import Isa
from .nest.pixel_bytes import PixelBytes
from .nest.pixel_words import PixelWords
from .tir import Expr, Vector, constant, reinterpret, store, vector

PLANES = 8  # What a turn takes; 0 stands for those that codes of fewer bits lack.
MAX_TURNED_WORDS = 8  # Beyond, the words of a plane lie too far apart.


def unpack_codes(
    layer: ConvLayer,
    isa: Isa,
    prepared: tuple[str, int],
    pixel: PixelWords | PixelBytes,
    target: tirx.Buffer,
    base: Expr,
    shift: int = 0,
    order: Sequence[int] | None = None,
) -> None:
    """Write the codes of a pixel, one word of each plane or as many bytes at a time.

    Parameters
    ----------
    layer : ConvLayer
    isa : Isa
    prepared : (dtype, size)
        What a prepared pixel is made of.
    pixel : PixelWords or PixelBytes
    target, base
        Where the codes go.
    shift : int
        0, or 128 that is taken from every code.
    order : sequence of int, optional
        Which channel of a vector goes where; as they are.
    """
    (dtype, size), at_once = prepared, min(isa.vector_bytes, WORD_BITS)
    turns = isinstance(pixel, PixelWords) and _turns(layer, isa, pixel.per_plane)
    for word in range(-(-size // WORD_BITS)):
        for start in range(0, min(WORD_BITS, size - word * WORD_BITS), at_once):
            if isinstance(pixel, PixelBytes):
                codes = pixel.neighbours(word * WORD_BITS + start, at_once)
            elif turns:
                codes = _turned(layer, isa, pixel, word)
            else:
                planes = [pixel.word(k, word) for k in range(layer.act_bits)]
                codes = bytes_of_words(isa, planes, layer.geometry.act_coefficients, start)
            if shift:
                codes = codes ^ constant(shift, "uint8", at_once)
            if order is not None:
                codes = tirx.Shuffle([T.Bind(codes)], order)
            if dtype != "uint8":
                codes = tirx.Cast(vector(dtype, at_once), codes)
            # What lies behind the last channel is overwritten by the next pixel.
            store(target, codes, base + word * WORD_BITS + start, at_once)


def _turns(layer: ConvLayer, isa: Isa, per_plane: int) -> bool:
    is_whole = isa.vector_bytes == WORD_BITS and per_plane <= MAX_TURNED_WORDS
    return isa.has_bit_matrices and is_whole and are_positional(layer.geometry.act_coefficients)


def bytes_of_words(
    isa: Isa, words: Sequence[Expr], coefficients: Sequence[int], start: int
) -> Vector:
    """Bytes that add up a coefficient for each word which has a bit there.

    Parameters
    ----------
    isa : Isa
    words : sequence of expression
        Byte i is of bit `start` + i of all of them.
    coefficients : sequence of int
        At least as many.
    start : int
    """
    total = zero = constant(0, "uint8", isa.vector_bytes)
    for number, (word, kappa) in enumerate(zip(words, coefficients)):
        ones = constant(kappa, "uint8", isa.vector_bytes)
        term = T.Bind(isa.choose_by_bits(word, start, ones, zero))
        total = total + term if number else term
    return total


def _turned(layer: ConvLayer, isa: Isa, pixel: PixelWords, word: int) -> Vector:
    """Codes of a word of channels."""
    bits, per_plane = layer.act_bits, pixel.per_plane
    count = bits * per_plane
    words = [pixel.neighbours(i, min(PLANES, count - i)) for i in range(0, count, PLANES)]
    lanes = [k * per_plane + word for k in range(bits)]
    if bits < PLANES:
        words.append(constant(0, "uint64", PLANES))
        lanes += [count] * (PLANES - bits)
    column = tirx.Shuffle(words, lanes)
    octets = reinterpret(vector("uint8", WORD_BITS), T.Bind(column))
    order = [(PLANES - 1 - lane % PLANES) * PLANES + lane // PLANES for lane in range(WORD_BITS)]
    return isa.transpose_bits(T.Bind(tirx.Shuffle([octets], order)))


def planes_of_parts(isa: Isa, parts: list[Vector], bits: int) -> Vector:
    """Planes of the codes of as many channels as a vector has bytes.

    Parameters
    ----------
    isa : Isa
    parts : list of four int32 vectors
        Codes, clipped here to what `bits` hold.
    bits : int

    Returns
    -------
    vector of uint64, one lane a plane
    """
    return planes_of_bytes(isa, _clipped(isa, parts, bits), _saturated_places(isa.vector_bytes))


def bytes_of_parts(isa: Isa, parts: list[Vector], bits: int) -> Vector:
    """Bytes of the codes of as many channels as a vector has bytes; see `planes_of_parts`."""
    places = _saturated_places(isa.vector_bytes)
    return T.Bind(tirx.Shuffle([_clipped(isa, parts, bits)], places))


def _clipped(isa: Isa, parts: list[Vector], bits: int) -> Vector:
    codes = isa.saturated_bytes(parts)
    if bits < PLANES:
        codes = tirx.min(codes, constant(2**bits - 1, "uint8", isa.vector_bytes))
    return T.Bind(codes)


def planes_of_bytes(isa: Isa, octets: Vector, places: Sequence[int] = range(WORD_BITS)) -> Vector:
    """Planes of a word of channels, one 64-bit lane a plane.

    Parameters
    ----------
    isa : Isa
    octets : vector of uint8
        A code for each channel.
    places : sequence of int
        Which lane holds which channel's.
    """
    order = [places[lane - lane % PLANES + PLANES - 1 - lane % PLANES] for lane in range(WORD_BITS)]
    turned = isa.transpose_bits(T.Bind(tirx.Shuffle([octets], order)))
    planes = [lane % PLANES * PLANES + lane // PLANES for lane in range(WORD_BITS)]
    in_order = T.Bind(tirx.Shuffle([T.Bind(turned)], planes))
    return T.Bind(reinterpret(vector("uint64", PLANES), in_order))


def _saturated_places(channels: int) -> list[int]:
    """Where `Isa.saturated_bytes` puts each channel: four of each part to 16 bytes."""
    lanes = channels // 4
    return [c % lanes // 4 * 16 + c // lanes * 4 + c % 4 for c in range(channels)]
