"""Fifty random networks are exact, and the suite would notice if they weren't."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.suites.isolated import Outcome
from tests.suites.random_networks import check
from tests.suites.random_networks.onnx_network import OnnxNetwork
from tests.suites.random_networks.plan import PLANNERS, STYLES, Plan
from tests.suites.random_networks.recipe import (
    FRAMEWORKS,
    STEPS,
    Recipe,
    Step,
    recipe_of,
    simpler,
)
from tests.suites.random_networks.torch_network import PARTS, TorchNetwork
from tvm_bitenc.encoding import Encoding

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_random_networks_are_exact():
    """In a process of its own: a child of pytest's would inherit its threads."""
    options = ["--count", "25", "--kind", "both", "--no-shrink"]
    command = [sys.executable, "-m", "tests.suites.random_networks", *options]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-3000:]
    assert sum(map(int, re.findall(r"'pass': (\d+)", run.stdout))) >= 47, run.stdout[-3000:]


def test_every_step_is_reached():
    """Models of a few hundred recipes are valid, and hold every kind of step."""
    ops = set()
    for seed in range(300):
        model = OnnxNetwork(Plan(recipe_of(seed))).model()
        ops |= {node.op_type for node in model.graph.node}
        if model.graph.node:
            onnx.checker.check_model(model)
    assert ops >= {"Conv", "ConvTranspose", "MatMul", "Concat", "Add", "AveragePool", "Resize"}
    assert ops >= {"Quant", "BipolarQuant", "QuantizeLinear", "QLinearConv", "QLinearMatMul"}


def test_every_kind_has_both_spellings():
    recipes = [recipe_of(seed, "torch") for seed in range(300)]
    plans = [Plan(recipe) for recipe in recipes]
    assert {step.kind for recipe in recipes for step in recipe.steps} == set(STEPS)
    assert set(PLANNERS) == set(STEPS)
    assert {op.kind for plan in plans for op in plan.ops} == set(PARTS)
    grids = [grid for plan in plans for op in plan.ops for grid in op.grids]
    assert {grid.style for grid in grids} == set(STYLES["torch"])
    assert {grid.bits for grid in grids} == set(range(1, 9))
    for plan in plans[:30]:
        TorchNetwork(plan)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_broken_compiler_is_noticed(monkeypatch, framework):
    quantize = Encoding.quantize

    def off_by_one(self, x, axis=-1):
        codes = quantize(self, x, axis)
        return np.minimum(codes + (self.bits == 3), self.max_code).astype(codes.dtype)

    layer = Step("conv", channels=4, kernel=3, padding=1, weight_bits=3, act_bits=3, seed=6)
    recipe = Recipe(1, (layer, replace(layer, seed=5)), framework)
    assert check.check(recipe) == (1, 2)
    monkeypatch.setattr(Encoding, "quantize", off_by_one)
    with pytest.raises(check.Wrong, match="numbers differ"):
        check.check(recipe)


def test_failures_shrink(monkeypatch):
    """To the one step that fails, with the smallest numbers that do."""

    def fails(_function, recipes, _limit, _workers=None):
        bad = [any(s.kind == "pad" and s.back > 1 for s in r.steps) for r in recipes]
        return [Outcome("wrong" if is_bad else "pass", "") for is_bad in bad]

    monkeypatch.setattr(check, "run", fails)
    recipes = (recipe_of(seed, "torch") for seed in range(100))
    recipe = next(r for r in recipes if fails(None, [r], 0)[0].kind == "wrong")
    small = check.shrunk(recipe, "wrong")
    assert [(step.kind, step.back, step.channels) for step in small.steps] == [("pad", 2, 1)]
    assert (small.channels, small.batch, small.strategy) == (1, 1, "auto")
    assert small.framework == "torch"
    assert fails(None, simpler(small), 0) == [Outcome("pass", "")] * len(simpler(small))
