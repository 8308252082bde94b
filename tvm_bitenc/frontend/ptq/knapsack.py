"""Which of a layer's choices to take under a budget of all layers: a knapsack.

Every layer starts at its cheapest choice; then the upgrade that saves most error for its cost comes
next, along the lower convex hull of each layer's choices. That order is the Lagrangian optimum of
the knapsack for every budget that it meets, and within one upgrade of it for all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ...errors import BitencError
from .settings import Bits


@dataclass(frozen=True)
class Choice:
    """Bits that a layer may have, what they cost and what error they make."""

    bits: Bits
    cost: float
    error: float


def frontier(choices: Mapping[str, Sequence[Choice]]) -> list[tuple[str, Choice]]:
    """Return upgrades, best first, from every layer's cheapest choice up to its least error."""
    upgrades = []
    for name, options in choices.items():
        hull = _hull(options)
        for before, after in pairwise(hull):
            saved = (before.error - after.error) / (after.cost - before.cost)
            upgrades.append((saved, name, after))
    # Within a layer the hull's gains fall, so that its upgrades stay in order.
    upgrades.sort(key=lambda upgrade: -upgrade[0])
    return [(name, choice) for _, name, choice in upgrades]


def _hull(options: Sequence[Choice]) -> list[Choice]:
    """Lower convex hull of error over cost, from the cheapest choice to the least error."""
    hull: list[Choice] = []
    for option in sorted(options, key=lambda choice: (choice.cost, choice.error)):
        if hull and option.error >= hull[-1].error:
            continue
        while len(hull) > 1 and _slope(hull[-2], option) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        if hull and option.cost == hull[-1].cost:
            hull.pop()
        hull.append(option)
    return hull


def _slope(a: Choice, b: Choice) -> float:
    return (b.error - a.error) / (b.cost - a.cost) if b.cost > a.cost else -np.inf


def within_cost(choices: Mapping[str, Sequence[Choice]], budget: float) -> dict[str, Choice]:
    """Choose little error at a total cost of at most `budget`.

    Raises
    ------
    BitencError
        If even the cheapest choices cost more.
    """
    chosen = cheapest(choices)
    total = sum(choice.cost for choice in chosen.values())
    if total > budget:
        raise BitencError(
            "quantize",
            f"the budget is {budget:.6g}, and with the fewest bits the layers need {total:.6g}",
            "Give more, or name fewer layers with first_last_bits=None",
        )
    for name, choice in frontier(choices):
        better = choice.error < chosen[name].error
        if better and total + choice.cost - chosen[name].cost <= budget:
            total += choice.cost - chosen[name].cost
            chosen[name] = choice
    return chosen


def within_error(
    choices: Mapping[str, Sequence[Choice]],
    budget: float,
    measure: Callable[[dict[str, Choice]], float],
) -> dict[str, Choice]:
    """Choose little cost at a measured error of at most `budget`, by bisection along the frontier.

    Raises
    ------
    BitencError
        If the error is larger with the most bits.
    """
    upgrades = frontier(choices)

    def after(count: int) -> dict[str, Choice]:
        return {**cheapest(choices), **dict(upgrades[:count])}

    enough = len(upgrades)
    least = measure(after(enough))
    if least > budget:
        raise BitencError(
            "quantize",
            f"the error budget is {budget:.6g}, and with the most bits the error is {least:.6g}",
            "Allow a larger error, or raise weight_bits and act_bits",
        )
    too_few = -1
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if measure(after(middle)) <= budget:
            enough = middle
        else:
            too_few = middle
    return after(enough)


def cheapest(choices: Mapping[str, Sequence[Choice]]) -> dict[str, Choice]:
    """Return every layer's cheapest choice."""
    return {name: _hull(options)[0] for name, options in choices.items()}
