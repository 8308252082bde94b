"""Building a recipe, running it, and comparing; and shrinking one that fails."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
import tvm

import tvm_bitenc as be
from tests.suites.isolated import Outcome, Wrong, run

from .onnx_network import OnnxNetwork, expected
from .plan import Plan, inputs_of
from .recipe import Recipe, Step, recipe_of, simpler
from .torch_network import TorchNetwork, exported

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
    plan = Plan(recipe)
    if not plan.ops:
        return 0, 0
    inputs = inputs_of(plan)
    module, wanted = IMPORTS[recipe.framework](plan, inputs)
    lib = be.build(module, strategy=recipe.strategy, threads=recipe.threads)
    found = lib(*inputs)
    found = found if isinstance(found, (tuple, list)) else [found]
    if len(found) != len(wanted):
        raise Wrong(f"{len(found)} outputs, not {len(wanted)}")
    for i, (a, b) in enumerate(zip(found, wanted)):
        a = np.asarray(a)
        if a.shape != b.shape or a.dtype != b.dtype:
            raise Wrong(f"output {i}: {a.dtype} {a.shape}, not {b.dtype} {b.shape}")
        if not np.array_equal(a, b):
            raise Wrong(f"output {i}: {int((a != b).sum())} of {b.size} numbers differ")
    return len(wanted), len(lib.report().layers)


def _from_onnx(plan: Plan, inputs: list[np.ndarray]) -> tuple[tvm.IRModule, list[np.ndarray]]:
    model = OnnxNetwork(plan).model()
    return be.from_onnx(model), expected(model, dict(zip(plan.inputs, inputs)))


def _from_torch(plan: Plan, inputs: list[np.ndarray]) -> tuple[tvm.IRModule, list[np.ndarray]]:
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    network, tensors = TorchNetwork(plan), [torch.tensor(x) for x in inputs]
    with torch.no_grad():
        wanted = [y.numpy().copy() for y in network(*tensors)]
    if plan.recipe.dynamic:
        return be.from_torch(exported(network, tensors)), wanted
    return be.from_torch(network, tuple(tensors)), wanted


IMPORTS = {"onnx": _from_onnx, "torch": _from_torch}


def outcomes(
    recipes: list[Recipe],
    workers: int | None = None,
    observe: Callable[[int, Outcome], None] | None = None,
) -> list[Outcome]:
    """Check many recipes, each in a process of its own; what fails is observed at once."""
    _warm_up(recipes)
    return run(check, recipes, LIMIT, workers, observe)


def _warm_up(recipes: list[Recipe]) -> None:
    """Import and build a layer of each framework: the first of a process takes far longer."""
    for framework in {recipe.framework for recipe in recipes}:
        plan = Plan(Recipe(0, (Step("conv"),), framework))
        be.build(IMPORTS[framework](plan, inputs_of(plan))[0], threads=1)


def recipes_of(seeds: list[int], frameworks: tuple[str, ...]) -> list[Recipe]:
    """The recipes of some seeds, for each framework in turn."""
    return [recipe_of(seed, framework) for seed in seeds for framework in frameworks]


def command(recipe: Recipe) -> str:
    """What repeats and shrinks a recipe."""
    kind, seed = recipe.framework, recipe.seed
    return f"python -m tests.suites.random_networks --kind {kind} --seed {seed} --count 1"


def shrunk(recipe: Recipe, kind: str, workers: int | None = None) -> Recipe:
    """The simplest recipe that is found to fail in the same way."""
    for _ in range(MAX_ROUNDS):
        candidates = simpler(recipe)
        for start in range(0, len(candidates), 8):
            batch = candidates[start : start + 8]
            ends = run(check, batch, LIMIT, workers)
            failing = [r for r, end in zip(batch, ends) if end.kind == kind]
            if failing:
                recipe = failing[0]
                break
        else:
            return recipe
    return recipe


def write(recipe: Recipe, folder: Path) -> Path:
    """Write a recipe's network, so that one can load it: a model, or an exported program."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = Plan(recipe)
    if recipe.framework == "onnx":
        path = folder / f"seed{recipe.seed}.onnx"
        onnx.save(OnnxNetwork(plan).model(), path)
        return path
    path, tensors = folder / f"seed{recipe.seed}.pt2", [torch.tensor(x) for x in inputs_of(plan)]
    network = TorchNetwork(plan)
    program = exported(network, tensors) if recipe.dynamic else torch.export.export(
        network, tuple(tensors))  # fmt: skip
    torch.export.save(program, path)
    return path
