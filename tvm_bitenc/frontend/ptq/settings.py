"""What a user asks of `quantize`, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ...encoding import check_bits
from ...errors import BitencError
from ...target import Target

ROUNDINGS = ("nearest", "bias", "adaround")
Bits = tuple[int, int]  # Of weights and of activations.


@dataclass(frozen=True)
class Settings:
    """Bits and roundings.

    Parameters
    ----------
    bits : (weight_bits, act_bits)
        Of every layer that the others don't name, or the most in a search.
    first_last_bits : int or None
    named_bits : dict
        Bits of some layers by name.
    skip : tuple of str
        Patterns of layers that stay float.
    rounding : str
    seed : int

    Raises
    ------
    UnsupportedError
        For bits outside 1..8.
    BitencError
        For an unknown rounding.
    """

    bits: Bits
    first_last_bits: int | None
    named_bits: Mapping[str, Bits]
    skip: tuple[str, ...]
    rounding: str
    seed: int

    def __post_init__(self):
        for kind, count in zip(("weight_bits", "act_bits"), self.bits):
            check_bits(count, f"quantize: {kind}")
        if self.first_last_bits is not None:
            check_bits(self.first_last_bits, "quantize: first_last_bits")
        for name, pair in self.named_bits.items():
            where = f"quantize: bits of layer {name!r}"
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise BitencError(where, f"{pair!r} isn't a pair", "Give (weight_bits, act_bits)")
            for count in pair:
                check_bits(count, where)
        if self.rounding not in ROUNDINGS:
            raise BitencError(
                "quantize", f"rounding {self.rounding!r} isn't known", f"Use one of {ROUNDINGS}"
            )

    def is_skipped(self, name: str) -> bool:
        """Whether a layer stays float on request."""
        return any(fnmatchcase(name, pattern) for pattern in self.skip)


@dataclass(frozen=True)
class Budget:
    """What a search for bits must keep to.

    Parameters
    ----------
    kind : {"weight_bytes", "latency", "error"}
    amount : float
    target : str, Path or Target
        For latency.
    """

    kind: str
    amount: float
    target: str | Path | Target = "native"


def budget_of(
    bits: object, given: Mapping[str, float | None], target: str | Path | Target
) -> Budget | None:
    """Return the one budget that automatic bits need, None for given bits.

    Raises
    ------
    BitencError
        For a budget without ``bits="auto"``, none or several with it, or an empty one.
    """
    budgets = {kind: amount for kind, amount in given.items() if amount is not None}
    if isinstance(bits, str) and bits != "auto":
        raise BitencError("quantize", f"bits={bits!r} isn't known", 'Use "auto" or a mapping')
    if bits != "auto":
        if budgets:
            raise BitencError(
                "quantize", f"{', '.join(budgets)} is a budget of automatic bits", 'Add bits="auto"'
            )
        return None
    if len(budgets) != 1:
        raise BitencError(
            "quantize",
            f'bits="auto" needs one budget, and {len(budgets)} are given',
            "Give one of weight_bytes=, latency= and error=",
        )
    ((kind, amount),) = budgets.items()
    if not amount > 0:
        raise BitencError("quantize", f"the budget {kind}={amount!r} is empty", "Give more than 0")
    return Budget(kind, amount, target)


def pattern_list(skip: str | Iterable[str]) -> tuple[str, ...]:
    """One pattern or several."""
    return (skip,) if isinstance(skip, str) else tuple(skip)
