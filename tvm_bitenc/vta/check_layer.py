"""What the accelerator can't compute of a convolution, and why."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..accelerator import Accelerator
from ..errors import UnsupportedError
from . import isa
from .constants import Constants, other_factors
from .functional import FACTOR_BITS, ONES_BITS


def check(constants: Constants, accelerator: Accelerator) -> None:
    """Refuse what the accelerator can't compute; whether it fits the buffers `tile` says.

    Raises
    ------
    UnsupportedError
        With the cause.
    """
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
