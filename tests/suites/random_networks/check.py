"""Building a recipe, running it, and comparing; and shrinking one that fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

import tvm_bitenc as be
from tests.suites.isolated import Outcome, Wrong, run

from .onnx_network import Network, expected, inputs_of
from .recipe import Recipe, recipe_of, simpler

LIMIT = 120.0  # Seconds of a network in a child.
FOUND = ("wrong", "raw", "hang")
MAX_ROUNDS = 40


def check(recipe: Recipe) -> tuple[int, int]:
    """Compare a recipe's network with its oracle; how many outputs and layers there were.

    Raises
    ------
    Wrong
        If any bit of any output differs.
    """
    network = Network(recipe)
    if not network.nodes:
        return 0, 0
    model = network.model()
    inputs = inputs_of(recipe, network.inputs, network.input_shape)
    wanted = expected(model, inputs)
    lib = be.build(be.from_onnx(model), strategy=recipe.strategy, threads=recipe.threads)
    found = lib(*inputs.values())
    found = found if isinstance(found, (tuple, list)) else [found]
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        a = np.asarray(a)
        if a.shape != b.shape or a.dtype != b.dtype or not np.array_equal(a, b):
            differing = int((a != b).sum()) if a.shape == b.shape else a.shape
            raise Wrong(f"output {i}: {differing} of {b.size} numbers differ")
    return len(wanted), len(lib.report().layers)


def outcomes(seeds: list[int], workers: int | None = None) -> list[Outcome]:
    """Check many recipes, each in a process of its own."""
    return run(check, [recipe_of(seed) for seed in seeds], LIMIT, workers)


def shrunk(recipe: Recipe, kind: str) -> Recipe:
    """The simplest recipe that is found to fail in the same way."""
    for _ in range(MAX_ROUNDS):
        candidates = simpler(recipe)
        for start in range(0, len(candidates), 8):
            batch = candidates[start : start + 8]
            ends = run(check, batch, LIMIT)
            failing = [r for r, end in zip(batch, ends) if end.kind == kind]
            if failing:
                recipe = failing[0]
                break
        else:
            return recipe
    return recipe


def write(recipe: Recipe, folder: Path) -> Path:
    """Write a recipe's model, so that one can load it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"seed{recipe.seed}.onnx"
    onnx.save(Network(recipe).model(), path)
    return path
