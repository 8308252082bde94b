"""A hundred random networks are exact, and the suite would notice if they weren't."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from tests.suites.isolated import Outcome
from tests.suites.random_networks import check
from tests.suites.random_networks.onnx_network import Network
from tests.suites.random_networks.recipe import STEPS, Recipe, Step, recipe_of, simpler
from tvm_bitenc.encoding import Encoding


@pytest.mark.slow
def test_random_networks_are_exact():
    ends = check.outcomes(list(range(100)))
    found = [
        (seed, end.kind, end.detail) for seed, end in enumerate(ends) if end.kind in check.FOUND
    ]
    assert not found, "python -m tests.suites.random_networks shrinks them"
    assert sum(end.kind == "pass" for end in ends) >= 95


def test_every_step_is_reached():
    """Models of a few hundred recipes are valid, and hold every kind of step."""
    ops, kinds = set(), set()
    for seed in range(300):
        recipe = recipe_of(seed)
        kinds |= {step.kind for step in recipe.steps}
        model = Network(recipe).model()
        ops |= {node.op_type for node in model.graph.node}
        if model.graph.node:
            onnx.checker.check_model(model)
    assert kinds == set(STEPS)
    assert ops >= {"Conv", "ConvTranspose", "MatMul", "Concat", "Add", "AveragePool", "Resize"}


def test_a_broken_compiler_is_noticed(monkeypatch):
    quantize = Encoding.quantize

    def off_by_one(self, x, axis=-1):
        codes = quantize(self, x, axis)
        return np.minimum(codes + (self.bits == 3), self.max_code).astype(codes.dtype)

    layer = Step("conv", channels=4, kernel=3, padding=1, weight_bits=3, act_bits=3, seed=6)
    recipe = Recipe(1, (layer, replace(layer, seed=5)))
    assert check.check(recipe) == (1, 2)
    monkeypatch.setattr(Encoding, "quantize", off_by_one)
    with pytest.raises(check.Wrong, match="numbers differ"):
        check.check(recipe)


def test_failures_shrink(monkeypatch):
    """To the one step that fails, with the smallest numbers that do."""

    def fails(_function, recipes, _limit):
        bad = [any(s.kind == "pad" and s.back > 1 for s in r.steps) for r in recipes]
        return [Outcome("wrong" if is_bad else "pass", "") for is_bad in bad]

    monkeypatch.setattr(check, "run", fails)
    recipe = next(r for r in map(recipe_of, range(100)) if fails(None, [r], 0)[0].kind == "wrong")
    small = check.shrunk(recipe, "wrong")
    assert [(step.kind, step.back, step.channels) for step in small.steps] == [("pad", 2, 1)]
    assert (small.channels, small.batch, small.strategy) == (1, 1, "auto")
    assert fails(None, simpler(small), 0) == [Outcome("pass", "")] * len(simpler(small))
