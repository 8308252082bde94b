"""One convolution, and a residual that is added to it, to instructions of the accelerator."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..accelerator import Accelerator
from ..encoding import WORD_BITS
from ..errors import UnsupportedError
from ..layer import ConvLayer
from . import isa
from .check_layer import check
from .constants import Constants, with_binary_weights
from .conv_stream import ConvStream
from .depthwise import DepthwiseConstants, is_depthwise
from .floats import arithmetic_of
from .link import Piece, link_layer
from .program import Output, Program
from .tensor import View
from .tiling import ACCUMULATOR_BITS, NARROW_BITS, Tiling, lacking, tile


@dataclass(frozen=True, eq=False)
class Ending:
    """What follows a layer; see `compile_conv`."""

    table: np.ndarray | None = None
    float_thresholds: np.ndarray | None = None
    writes_floats: bool = False


def compile_conv(
    layer: ConvLayer,
    accelerator: Accelerator,
    table: np.ndarray | None = None,
    float_thresholds: np.ndarray | None = None,
    writes_floats: bool = True,
    *,
    reads_packed: bool = False,
    writes_packed: bool = False,
) -> Program:
    """Compile a layer on packed planes; its output is as `run_conv` shapes it.

    Parameters
    ----------
    layer : ConvLayer
    accelerator : Accelerator
    table : ndarray of uint8, shape (2^bits of the layer, 2^bits of the residual), optional
        Code of the output for each code of the layer, along which it rises, and of the residual.
    float_thresholds : ndarray of float32, shape (2^bits - 1,) or (2^bits - 1, channels), optional
        Of a layer with float steps: it ends in codes, as many as thresholds that a number reaches.
    writes_floats : bool
        Of such a layer: whether the numbers themselves follow. Without thresholds they do.
    reads_packed, writes_packed : bool
        Whether planes of the input, and of the output, lie side by side: bit plane C + channel of
        ceil(bits C / 64) words a pixel. Of the output, bits behind these are any.

    Raises
    ------
    UnsupportedError
        For groups of few channels, float steps that no unit computes, branches whose coefficients
        aren't powers of two, dynamic batches, planes that can't lie side by side, and layers that
        don't fit the buffers or the instructions' fields.
    """
    ending = Ending(table, float_thresholds, writes_floats)
    piece = conv_piece(
        layer, accelerator, ending, reads_packed=reads_packed, writes_packed=writes_packed
    )
    return link_layer(piece)


def conv_piece(
    layer: ConvLayer,
    accelerator: Accelerator,
    ending: Ending = Ending(),
    source: View | None = None,
    *,
    reads_packed: bool = False,
    writes_packed: bool = False,
) -> Piece:
    """Compile a layer, whose places in memory are still to be given.

    Parameters
    ----------
    layer, accelerator
        As for `compile_conv`.
    ending : Ending
    source : View, optional
        What it reads of tensors that are in the accelerator's memory; None for what the CPU hands
        over, which it may pack.
    reads_packed, writes_packed : bool
        As for `compile_conv`.
    """
    if layer.channel_rows or layer.steps:
        layer = layer.expanded
    is_dense = source is None or source.fills_rows(accelerator.row_words)
    if layer.geometry.groups > 1 and not is_dense:
        cause = "its groups' channels don't lie side by side"
        raise UnsupportedError(layer.name, cause, "Run it on the CPU")
    if layer.steps:
        constants = _float_constants(layer, accelerator, ending, source)
    else:
        constants = _constants(layer, ending.table, accelerator, source)
    if reads_packed or writes_packed:
        sums = constants.layer.expanded if writes_packed else constants.layer
        constants = replace(
            constants, layer=sums, reads_packed=reads_packed, writes_packed=writes_packed
        )
    check(constants, accelerator)
    stream = ConvStream(constants, tile(constants.window, accelerator))
    fragment = stream.fragment(layer.macs // layer.copies * constants.branches)
    window = constants.window
    numbers = Output(0, fragment.floats_words or fragment.output_words, kind="floats")
    if window.is_codes:
        outputs = [Output(0, fragment.output_words)] + [numbers] * window.writes_floats
    elif window.is_float:
        outputs = [numbers]
    else:
        is_narrow = window.out_bits == NARROW_BITS
        spacing = 1 + accelerator.channels % 2
        own = Output(0, fragment.output_words, (), "accumulators", layer.copies, is_narrow, spacing)
        outputs = [own]
    return Piece(fragment, tuple(outputs), constants.packing)


def check_floats(layer: ConvLayer, accelerator: Accelerator) -> None:
    """Whether a layer's float steps can run behind its sums, as far as is seen without a program.

    Raises
    ------
    UnsupportedError
        If not.
    """
    batch_of_one = replace(layer.expanded, input_shape=(1, *layer.input_shape[1:]))
    static = replace(batch_of_one, has_dynamic_batch=False)
    constants = _float_constants(static, accelerator, Ending(), None)
    check(constants, accelerator)
    tile(constants.window, accelerator)


def _float_constants(
    layer: ConvLayer, accelerator: Accelerator, ending: Ending, source: View | None
) -> Constants:
    if not accelerator.float_units:
        cure = "Give the accelerator float units, or run it on the CPU"
        raise UnsupportedError(layer.name, "it ends in float arithmetic", cure)
    arithmetic, layer = arithmetic_of(layer), with_binary_weights(layer)
    thresholds = ending.float_thresholds
    if thresholds is not None:
        thresholds = thresholds.reshape(len(thresholds), -1)
        thresholds = np.broadcast_to(thresholds, (len(thresholds), layer.out_channels))
    made = DepthwiseConstants if is_depthwise(layer) else Constants
    if thresholds is None and made is DepthwiseConstants:
        cause = "it is depthwise, and ends in float arithmetic without codes"
        raise UnsupportedError(layer.name, cause, "Run it on the CPU")
    return made(
        layer,
        source=source,
        arithmetic=arithmetic,
        float_thresholds=thresholds,
        writes_floats=ending.writes_floats or thresholds is None,
        depth=accelerator.depth,
    )


def _constants(
    layer: ConvLayer, table: np.ndarray | None, accelerator: Accelerator, source: View | None
) -> Constants:
    """Choose how many output channels share each sum: as many as the accelerator can.

    It ends a sum in several codes, if copies of DM channels lie equally in their words, and writes
    accumulators once, with 16 bits where these hold them.
    """
    layer, depth = with_binary_weights(layer), accelerator.depth
    made = DepthwiseConstants if is_depthwise(layer) else Constants
    if layer.thresholds is None:
        low, high = layer.accumulator_range
        fits = low.min() >= -(1 << NARROW_BITS - 1) and high.max() < 1 << NARROW_BITS - 1
        is_narrow = fits and accelerator.channels * NARROW_BITS >= WORD_BITS
        bits = NARROW_BITS if is_narrow else ACCUMULATOR_BITS
        return made(layer.distinct, table, bits, source, depth=depth)
    for copies in (count for count in range(layer.copies, 1, -1) if layer.copies % count == 0):
        channels = layer.out_channels // copies
        is_aligned = channels % WORD_BITS == 0 or WORD_BITS % channels == 0
        is_aligned &= channels % accelerator.channels == 0
        constants = made(layer.with_copies(copies), table, source=source, depth=depth)
        can_copy = copies <= isa.MAX_COPIES and not constants.window.residual_bits
        if is_aligned and can_copy and not lacking(Tiling(constants.window, accelerator, 1)):
            return constants
    return made(layer.expanded, table, source=source, depth=depth)


def output_of(layer: ConvLayer, program: Program, words: np.ndarray) -> np.ndarray:
    """Shape a program's output.

    It is uint64 (N, H, W, bits, words), or int32 or float32 (N, H, W, channels).
    """
    shape = (layer.input_shape[0], *layer.output_size)
    if layer.thresholds is None:
        last = program.outputs[-1]  # Behind codes, where there are both.
        return last.shaped(words[words.size - last.words :], (*shape, layer.out_channels))
    return words.reshape(*shape, layer.out_bits, -1)
