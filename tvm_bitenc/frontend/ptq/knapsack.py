"""Which of its choices each layer takes under a budget of all layers: a knapsack.

Layers are added one by one to a list of partial selections, from which those go that cost more than
another without a smaller error. That is exact dynamic programming, until the list has grown to
`MOST_STATES`; then the best within each small interval of cost are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import BitencError
from .settings import Bits

MOST_STATES = 4096


@dataclass(frozen=True)
class Choice:
    """Bits that a layer may have, what they cost and what error they make."""

    bits: Bits
    cost: float
    error: float


Selection = dict[str, Choice]  # One choice per layer.


class Frontier:
    """Selections that no other beats in both cost and error, the cheapest first.

    Parameters
    ----------
    choices : dict
        What each layer may take, by name.

    Attributes
    ----------
    costs, errors : ndarray of float64
        Sums over the layers; costs rise and errors fall.
    """

    def __init__(self, choices: Mapping[str, Sequence[Choice]]):
        self.choices = choices
        self.costs, self.errors = np.zeros(1), np.zeros(1)
        self.origins: list[tuple[np.ndarray, np.ndarray]] = []
        for options in choices.values():
            self._add(options)

    def _add(self, options: Sequence[Choice]) -> None:
        option_costs, option_errors = (
            np.array([getattr(option, name) for option in options]) for name in ("cost", "error")
        )
        costs = (self.costs[:, None] + option_costs).ravel()
        errors = (self.errors[:, None] + option_errors).ravel()
        kept = _undominated(costs, errors)
        self.origins.append(np.divmod(kept, len(options)))
        self.costs, self.errors = costs[kept], errors[kept]

    def __len__(self) -> int:
        return len(self.costs)

    def __getitem__(self, index: int) -> Selection:
        chosen = {}
        for name, (before, option) in zip(reversed([*self.choices]), reversed(self.origins)):
            chosen[name] = self.choices[name][option[index]]
            index = before[index]
        return dict(reversed(chosen.items()))


def _undominated(costs: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Positions of what costs more only for a smaller error, by rising cost."""
    order = np.lexsort((errors, costs))
    best = np.minimum.accumulate(errors[order])
    is_better = np.append(True, best[1:] < best[:-1])
    kept = order[is_better]
    if len(kept) <= MOST_STATES:
        return kept
    interval = (costs[kept] - costs[kept[0]]) / (costs[kept[-1]] - costs[kept[0]]) * MOST_STATES
    is_last = np.append(np.diff(interval.astype(int)) > 0, True)
    is_last[0] = True  # The cheapest selection must stay.
    return kept[is_last]


def within_cost(choices: Mapping[str, Sequence[Choice]], budget: float) -> Selection:
    """Choose the least error at a total cost of at most `budget`.

    Raises
    ------
    BitencError
        If even the cheapest choices cost more.
    """
    frontier = Frontier(choices)
    affordable = int(np.searchsorted(frontier.costs, budget, side="right"))
    if affordable == 0:
        raise BitencError(
            "quantize",
            f"the budget is {budget:.6g}, and with the fewest bits the layers need "
            f"{frontier.costs[0]:.6g}",
            "Give more, or free the first and last layers with first_last_bits=None",
        )
    return frontier[affordable - 1]


def within_error(
    choices: Mapping[str, Sequence[Choice]],
    budget: float,
    measure: Callable[[Selection], float],
) -> Selection:
    """Choose the least cost at a measured error of at most `budget`.

    By bisection, as if the measured error fell along the frontier like the predicted one.

    Raises
    ------
    BitencError
        If the error is larger with the most bits.
    """
    frontier = Frontier(choices)
    enough, too_few = len(frontier) - 1, -1
    least = measure(frontier[enough])
    if least > budget:
        raise BitencError(
            "quantize",
            f"the error budget is {budget:.6g}, and with the most bits the error is {least:.6g}",
            "Allow a larger error, or raise weight_bits and act_bits",
        )
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if measure(frontier[middle]) <= budget:
            enough = middle
        else:
            too_few = middle
    return frontier[enough]
