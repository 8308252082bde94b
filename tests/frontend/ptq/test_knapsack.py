"""The knapsack against trying everything, and its refusals."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_bitenc.errors import BitencError
from tvm_bitenc.frontend.ptq.knapsack import (
    MOST_STATES,
    Choice,
    Frontier,
    within_cost,
    within_error,
)

numbers = st.integers(1, 50)
layers = st.lists(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4), max_size=5)


def choices_of(rows):
    return {
        f"layer{i}": [Choice((j + 1, 4), float(cost), float(error)) for j, (cost, error) in pairs]
        for i, pairs in enumerate(map(list, map(enumerate, rows)))
    }


def total(selection, what):
    return sum(getattr(choice, what) for choice in selection)


@given(layers.filter(bool), st.integers(1, 250))
def test_no_selection_is_better(rows, budget):
    choices = choices_of(rows)
    affordable = [
        selection
        for selection in itertools.product(*choices.values())
        if total(selection, "cost") <= budget
    ]
    if not affordable:
        with pytest.raises(BitencError, match=r"budget is \d+.*need \d+.*first_last_bits=None"):
            within_cost(choices, budget)
        return
    chosen = within_cost(choices, budget)
    assert list(chosen) == list(choices)
    assert total(chosen.values(), "cost") <= budget
    assert total(chosen.values(), "error") == min(total(s, "error") for s in affordable)


def test_many_layers_cost_little_of_the_optimum():
    """Too many layers for all selections: dropping some costs less than a per cent here."""
    random = np.random.default_rng(0)
    rows = [[(n * w, 4.0**-w * n) for w in range(1, 9)] for n in random.integers(1, 9999, 40)]
    choices = choices_of(rows)
    assert len(Frontier(choices)) <= MOST_STATES + 1
    for count in (1, 2, 5):
        # All layers gain alike from a bit, so equal bits are optimal.
        uniform = [options[count - 1] for options in choices.values()]
        chosen = within_cost(choices, total(uniform, "cost"))
        assert total(chosen.values(), "cost") <= total(uniform, "cost")
        assert total(chosen.values(), "error") < 1.01 * total(uniform, "error")


def test_an_error_budget_is_met_as_measured():
    """The whole makes twice the error that its layers predict."""
    choices = choices_of([[(w, 4.0**-w) for w in range(1, 9)]] * 3)
    for budget in (1.0, 0.1, 0.01):
        chosen = within_error(choices, budget, lambda s: 2 * total(s.values(), "error"))
        assert budget / 5 < 2 * total(chosen.values(), "error") <= budget
    with pytest.raises(BitencError, match=r"error budget is 1e-09.*most bits the error is"):
        within_error(choices, 1e-9, lambda s: 2 * total(s.values(), "error"))
