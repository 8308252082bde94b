"""One convolution, and a residual that is added to it, to instructions of the accelerator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..accelerator import Accelerator
from ..bounds import INT32_MAX
from ..encoding import WORD_BITS
from ..errors import UnsupportedError
from ..layer import ConvLayer
from . import isa
from .constants import (
    Constants,
    DepthwiseConstants,
    is_depthwise,
    other_factors,
    with_binary_weights,
)
from .floats import arithmetic_of
from .functional import FACTOR_BITS, ONES_BITS
from .link import Piece, link_layer
from .program import Output, Program
from .stream import CONSTANTS, Stream
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
    _check(constants, accelerator)
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
    _check(constants, accelerator)
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


def _check(constants: Constants, accelerator: Accelerator) -> None:
    layer = constants.layer

    def refuse(cause: str, cure: str = "Run it on the CPU") -> None:
        raise UnsupportedError(layer.name, cause, cure)

    if layer.has_dynamic_batch:
        refuse("its batch isn't fixed")
    _check_groups(constants, accelerator, refuse)
    _check_packed(constants, accelerator, refuse)
    others = other_factors(layer.geometry, constants.is_depthwise)
    if others:
        refuse(
            f"coefficients {others} of its branches aren't powers of two",
            "Let neighbouring levels lie 1, 2, 4, ... times a number apart, or run it on the CPU",
        )
    lines = sum(map(len, constants.spans.values()))
    if lines > accelerator.pass_rows:
        refuse(f"its branches take {lines} passes of {accelerator.pass_rows}")
    counted = {act for run in constants.passes if run.ones for act in run.acts}
    missing = {k for k, kappa in enumerate(layer.geometry.act_coefficients) if kappa} - counted
    if constants.factor.any() and missing:
        refuse(f"weight offsets count activation planes {sorted(missing)} otherwise than branches")
    ones = layer.taps * sum(layer.geometry.act_coefficients)
    widest = int(np.abs(constants.factor).max())
    if widest >> FACTOR_BITS - 1 or (widest and ones >> ONES_BITS):
        refuse(f"weight offset {widest // 2} or {ones} ones don't fit the multiplier")


def _check_groups(
    constants: Constants, accelerator: Accelerator, refuse: Callable[[str], None]
) -> None:
    """Refuse groups that DM output channels, or a mask of nibbles, can't tell apart."""
    layer, groups = constants.layer, constants.layer.geometry.groups
    if constants.is_depthwise:
        highest = (1 << isa.LOOKUP_BITS) - 1
        if np.abs(layer.weight_integers).max() > highest:
            refuse(f"its weights are more than {highest} times their unit")
    elif groups > 1:
        reads, writes = layer.weight_codes.shape[1], len(layer.weight_codes) // groups
        if reads % isa.NIBBLE_BITS or writes % accelerator.channels:
            refuse(
                f"groups read {reads} channels and write {writes}, which aren't multiples of "
                f"{isa.NIBBLE_BITS} and {accelerator.channels}"
            )


def _check_packed(
    constants: Constants, accelerator: Accelerator, refuse: Callable[[str, str], None]
) -> None:
    """Refuse planes side by side where they can't be."""
    layer, cure = constants.layer, "Let each plane have words of its own"
    if constants.reads_packed and layer.geometry.groups > 1:
        refuse("groups can't read planes side by side", cure)
    if constants.reads_packed and layer.input_shape[3] % isa.NIBBLE_BITS:
        refuse(f"planes of {layer.input_shape[3]} channels can't lie side by side", cure)
    if not constants.writes_packed:
        return
    if layer.out_channels % accelerator.channels:
        refuse(f"planes of {layer.out_channels} channels can't lie side by side", cure)
    if layer.thresholds is None or constants.window.residual_bits:
        refuse("accumulators, and codes of a residual, can't be written side by side", cure)


class ConvStream(Stream):
    """A group loads its weights and constants once per band.

    Parameters
    ----------
    constants : Constants
    tiling : Tiling
    """

    def __init__(self, constants: Constants, tiling: Tiling):
        channels = len(constants.layer.weight_codes)
        groups = -(-channels // tiling.accelerator.channels)
        super().__init__(tiling, groups, constants.source)
        self.operands = constants
        self.addresses: list[int] = []
        self.word_firsts: list[int] = []  # Computations before each word of output channels.
        self.lines = {bit: self._lines(bit) for bit in constants.spans}

    def passes(self) -> list[dict[str, int]]:
        """Passes from the highest coefficient down, once for each bit where channels begin."""
        return [line for lines in self.lines.values() for line in lines]

    def _lines(self, bit: int) -> list[dict[str, int]]:
        rows = self.operands.weight_rows(bit)
        return [
            dict(
                act=span.row * self.tiling.word_rows,
                weight=rows[span.weights_alone],
                shift=int(run.shift),
                ones=int(run.ones),
                words=span.words,
                first=span.first,
                last=span.last,
                upper=span.upper,
            )
            for run, span in zip(self.operands.passes, self.operands.spans[bit])
        ]

    def prepare_groups(self) -> None:
        """Put weights and parameters of DM channels side by side."""
        for group in range(self.groups):
            first = group * self.accelerator.channels
            self.addresses.append(self._group(slice(first, first + self.accelerator.channels)))

    def _group(self, channels: slice) -> int:
        words = self.operands.weight_words(channels)
        missing = self.accelerator.channels - words.shape[1]
        rest = self.tiling.weight_rows - len(words)  # Of channels that begin at other bits.
        address = self.constant(np.pad(words, [(0, rest), (0, missing), (0, 0)]))
        constants, thresholds = self._parameters(channels)
        missing += self.accelerator.channels % 2  # Parameters of two channels fill a word.
        # Channels that don't exist reach no threshold, so that their bits are 0.
        never = np.pad(thresholds, [(0, 0), (0, missing)], constant_values=INT32_MAX)
        self.constant(np.concatenate([np.pad(constants, [(0, 0), (0, missing)]), never]))
        return address

    def _parameters(self, channels: slice) -> tuple[np.ndarray, np.ndarray]:
        """Rows of int32: factor of the ones, signs and border classes; and thresholds.

        Copies have a bit of the signs each, and thresholds behind one another.
        """
        operands, copies = self.operands, self.layer.copies
        falls = operands.falls.reshape(copies, -1)[:, channels].astype(np.int64)
        signs = (falls << np.arange(copies)[:, None]).sum(axis=0, keepdims=True)
        rows = [operands.factor[channels][None], signs, self.tiling.border[:, channels]]
        if operands.arithmetic is not None:
            rows.append(operands.arithmetic.rows[:, channels])
        thresholds = operands.thresholds.reshape(-1, copies, self.tiling.channels)[..., channels]
        thresholds = thresholds.swapaxes(0, 1).reshape(-1, thresholds.shape[-1])
        return np.concatenate(rows).astype(np.int32), thresholds

    def load_group(self, band: tuple[int, int, int], group: int) -> None:
        """Load the residual of a word of channels with its first group, and what each reads."""
        word, part = divmod(group, self.groups_per_store)
        if part == 0 and (self.layer.residual_bits or self.layer.adds_floats):
            self._load_residual(band, word)
        self.free(self.computed - self.tiling.is_double_buffered("weight"))
        rows, channels = self.tiling.weight_rows, self.accelerator.channels
        address, row_words = self.addresses[group], channels * self.accelerator.row_words
        sizes = (
            ("weight", rows, row_words, address),
            ("param", self.tiling.param_rows, -(-channels // 2), address + rows * row_words),
        )
        for buffer, count, words, dram in sizes:
            self.add_load(
                CONSTANTS,
                buffer,
                sram=self.half(buffer, self.computed),
                dram=dram,
                rows=count,
                row_words=words,
                pixels=1,
                words=words,
                push_next=int(buffer == "param"),
            )

    def _load_residual(self, band: tuple[int, int, int], word: int) -> None:
        """Load a word of the residual's channels, for all pixels of a band."""
        self.word_firsts.append(self.computed)
        if len(self.word_firsts) > 2:
            self.free(self.word_firsts[-2])
        (_, image, first_row), bits = band, self.layer.residual_bits
        (height, width), words = self.layer.output_size, -(-self.groups // self.groups_per_store)
        pixel = (image * height + first_row) * width
        if self.layer.adds_floats:
            self.add_load(
                self.residual,
                "residual",
                sram=self.half("residual", self.stores),
                dram=pixel * self.float_words + word * self.tiling.pixel_words,
                rows=self.band_rows(first_row) * width,
                row_words=self.float_words,
                pixels=1,
                words=self.tiling.pixel_words,
            )
            return
        self.add_load(
            self.residual,
            "residual",
            sram=self.half("residual", self.stores),
            dram=pixel * bits * words + word,
            rows=self.band_rows(first_row) * width,
            row_words=bits * words,
            pixels=bits,
            pixel_words=words,
            words=1,
        )

    def compute(self, band: tuple[int, int, int], group: int) -> None:
        """Compute DM channels of a band."""
        row_low, row_high, column_low, column_high = self.tiling.edges
        read = self.operands.channels_read(group * self.accelerator.channels)
        row, bit = divmod(read.start, self.operands.row_bits)
        number = [*self.lines].index(bit)
        self.set_up(self.lines[bit], number * len(self.operands.passes))
        self.add_compute(
            isa.Conv,
            band,
            group,
            pop_prev=1,
            act=self.half("act", band[0]) + row * self.tiling.word_rows,
            weight=self.half("weight", self.computed),
            param=self.half("param", self.computed),
            residual=self.half("residual", self.stores),
            residual_bits=self.layer.residual_bits,
            passes=len(self.operands.passes),
            depthwise=int(self.operands.is_depthwise),
            row_low=row_low,
            row_high=row_high,
            column_low=column_low,
            column_high=column_high,
            thresholds=self.tiling.threshold_row,
        )
