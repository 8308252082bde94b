"""One convolution, and a residual that is added to it, to a program for the accelerator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..accelerator import Accelerator
from ..bounds import INT32_MAX
from ..encoding import WORD_BITS, pack
from ..errors import UnsupportedError
from ..layer import ConvLayer
from . import isa
from .constants import Constants, other_factors, with_binary_weights
from .functional import FACTOR_BITS, ONES_BITS
from .program import Program
from .stream import Stream
from .tiling import ACCUMULATOR_BITS, NARROW_BITS, Tiling, lacking, tile


def compile_conv(
    layer: ConvLayer, accelerator: Accelerator, table: np.ndarray | None = None
) -> Program:
    """Compile a layer on packed planes; its output is as `run_conv` shapes it.

    Parameters
    ----------
    layer : ConvLayer
    accelerator : Accelerator
    table : ndarray of uint8, shape (2^bits of the layer, 2^bits of the residual), optional
        Code of the output for each code of the layer, along which it rises, and of the residual.

    Raises
    ------
    UnsupportedError
        For groups, float steps, branches whose coefficients aren't powers of two, dynamic batches,
        and layers that don't fit the buffers or the instructions' fields.
    """
    if layer.steps:
        raise UnsupportedError(layer.name, "it ends in float arithmetic", "Run it on the CPU")
    if layer.channel_rows:
        layer = layer.expanded
    constants = _constants(layer, table, accelerator)
    _check(constants, accelerator)
    stream = ConvStream(constants, tile(constants.window, accelerator))
    macs = layer.macs // layer.copies * constants.branches
    return replace(
        stream.program(macs),
        copies=layer.copies if layer.thresholds is None else 1,
        narrow=constants.window.out_bits == NARROW_BITS,
        spacing=1 + accelerator.channels % 2,
        packing=constants.packing,
    )


def _constants(layer: ConvLayer, table: np.ndarray | None, accelerator: Accelerator) -> Constants:
    """Choose how many output channels share each sum: as many as the accelerator can.

    It ends a sum in several codes, if copies of DM channels lie equally in their words, and writes
    accumulators once, with 16 bits where these hold them.
    """
    layer = with_binary_weights(layer)
    if layer.thresholds is None:
        low, high = layer.accumulator_range
        fits = low.min() >= -(1 << NARROW_BITS - 1) and high.max() < 1 << NARROW_BITS - 1
        is_narrow = fits and accelerator.channels * NARROW_BITS >= WORD_BITS
        return Constants(layer.distinct, table, NARROW_BITS if is_narrow else ACCUMULATOR_BITS)
    for copies in (count for count in range(layer.copies, 1, -1) if layer.copies % count == 0):
        channels = layer.out_channels // copies
        is_aligned = channels % WORD_BITS == 0 or WORD_BITS % channels == 0
        is_aligned &= channels % accelerator.channels == 0
        constants = Constants(layer.with_copies(copies), table)
        can_copy = copies <= isa.MAX_COPIES and not constants.window.residual_bits
        if is_aligned and can_copy and not lacking(Tiling(constants.window, accelerator, 1)):
            return constants
    return Constants(layer.expanded, table)


def output_of(layer: ConvLayer, program: Program, words: np.ndarray) -> np.ndarray:
    """Shape a program's output: uint64 (N, H, W, bits, words), or int32 (N, H, W, channels)."""
    shape = (layer.input_shape[0], *layer.output_size)
    if layer.thresholds is not None:
        return words.reshape(*shape, layer.out_bits, -1)
    return program.accumulators(words, (*shape, layer.out_channels))


def _check(constants: Constants, accelerator: Accelerator) -> None:
    layer = constants.layer

    def refuse(cause: str, cure: str = "Run it on the CPU") -> None:
        raise UnsupportedError(layer.name, cause, cure)

    if layer.geometry.groups != 1:
        refuse("the accelerator has no grouped convolutions")
    if layer.has_dynamic_batch:
        refuse("its batch isn't fixed")
    others = other_factors(layer.geometry)
    if others:
        refuse(
            f"coefficients {others} of its branches aren't powers of two",
            "Let neighbouring levels lie 1, 2, 4, ... times a number apart, or run it on the CPU",
        )
    if len(constants.passes) > accelerator.pass_rows:
        refuse(f"its branches take {len(constants.passes)} passes of {accelerator.pass_rows}")
    counted = {act for _, act, _, counts_ones in constants.passes if counts_ones}
    missing = {k for k, kappa in enumerate(layer.geometry.act_coefficients) if kappa} - counted
    if constants.factor.any() and missing:
        refuse(f"weight offsets count activation planes {sorted(missing)} otherwise than branches")
    ones = layer.taps * sum(layer.geometry.act_coefficients)
    widest = int(np.abs(constants.factor).max())
    if widest >> FACTOR_BITS - 1 or (widest and ones >> ONES_BITS):
        refuse(f"weight offset {widest // 2} or {ones} ones don't fit the multiplier")


def packed_weights(words: np.ndarray, steps: int, accelerator: Accelerator) -> np.ndarray:
    """Rows of the weight buffer as they lie in memory.

    Parameters
    ----------
    words : ndarray of uint64, shape (channels, height, width, planes, words)
    steps : int
        Words of DK bits of a tap and plane.
    accelerator : Accelerator

    Returns
    -------
    ndarray of uint64, shape (planes, rows, channels, words of a row)
        Each plane begins with a row.
    """
    unit = np.uint32 if accelerator.row_steps > 1 else np.uint64
    row_units = accelerator.row_words * accelerator.row_steps
    units = np.ascontiguousarray(words.transpose(3, 1, 2, 0, 4)).view(unit)
    per_step = row_units // accelerator.row_steps
    rest = max(steps * per_step - units.shape[-1], 0)
    units = np.pad(units, [(0, 0)] * 4 + [(0, rest)])[..., : steps * per_step]
    planes, height, width, channels, per_tap = units.shape
    units = units.swapaxes(3, 4).reshape(planes, height * width * per_tap, channels)
    units = np.pad(units, [(0, 0), (0, -units.shape[1] % row_units), (0, 0)])
    rows = units.reshape(planes, -1, row_units, channels).swapaxes(2, 3)
    return np.ascontiguousarray(rows).view(np.uint64)


class ConvStream(Stream):
    """A group loads its weights and constants once per band.

    Parameters
    ----------
    constants : Constants
    tiling : Tiling
    """

    def __init__(self, constants: Constants, tiling: Tiling):
        channels = len(constants.layer.weight_codes)
        super().__init__(tiling, -(-channels // tiling.accelerator.channels))
        self.operands = constants
        self.addresses: list[int] = []
        self.word_firsts: list[int] = []  # Computations before each word of output channels.

    def passes(self) -> list[dict[str, int]]:
        """Pairs of planes, from the highest coefficient down."""
        planes = self.operands.weight_planes
        plane_rows = self.tiling.plane_rows
        weight_rows = self.tiling.weight_rows // len(planes)
        return [
            dict(
                act=k * plane_rows,
                weight=planes.index(m) * weight_rows,
                shift=int(shift),
                ones=int(ones),
            )
            for m, k, shift, ones in self.operands.passes
        ]

    def prepare_groups(self) -> None:
        """Put weights and parameters of DM channels side by side."""
        for group in range(self.groups):
            first = group * self.accelerator.channels
            self.addresses.append(self._group(slice(first, first + self.accelerator.channels)))

    def _group(self, channels: slice) -> int:
        layer = self.operands.layer
        codes = layer.weight_codes[channels].transpose(0, 2, 3, 1)
        if self.operands.packing is not None:
            codes = codes.reshape(len(codes), 1, 1, -1)
        numbers = np.array(self.operands.weight_planes)
        inverted = numbers >= layer.weight_bits
        bits = codes[..., None, :] >> numbers[:, None] % layer.weight_bits & 1 ^ inverted[:, None]
        words = pack(bits.astype(np.uint8), 1)[..., 0, :]
        missing = self.accelerator.channels - len(codes)
        words = np.pad(words, [(0, missing)] + [(0, 0)] * 4)  # (channel, i, j, plane, word)
        address = self.constant(packed_weights(words, self.tiling.steps, self.accelerator))
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
        thresholds = operands.thresholds.reshape(-1, copies, self.tiling.channels)[..., channels]
        thresholds = thresholds.swapaxes(0, 1).reshape(-1, thresholds.shape[-1])
        return np.concatenate(rows).astype(np.int32), thresholds

    def load_group(self, band: tuple[int, int, int], group: int) -> None:
        """Load the residual of a word of channels with its first group, and what each reads."""
        word, part = divmod(group, self.groups_per_store)
        if part == 0 and self.layer.residual_bits:
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
                "constants",
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
        self.add_load(
            "input",
            "residual",
            sram=self.half("residual", self.stores),
            dram=self.plane_words + pixel * bits * words + word,
            rows=self.band_rows(first_row) * width,
            row_words=bits * words,
            pixels=bits,
            pixel_words=words,
            words=1,
        )

    def compute(self, band: tuple[int, int, int], group: int) -> None:
        """Compute DM channels of a band."""
        row_low, row_high, column_low, column_high = self.tiling.edges
        self.add_compute(
            isa.Conv,
            band,
            group,
            pop_prev=1,
            act=self.half("act", band[0]),
            weight=self.half("weight", self.computed),
            param=self.half("param", self.computed),
            residual=self.half("residual", self.stores),
            residual_bits=self.layer.residual_bits,
            passes=len(self.operands.passes),
            words=self.tiling.steps,
            row_low=row_low,
            row_high=row_high,
            column_low=column_low,
            column_high=column_high,
            thresholds=2 + len(self.tiling.border),
        )
