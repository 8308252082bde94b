"""A network as data: a list of steps that apply to whatever tensor is at hand.

A step that doesn't suit the tensor is left out, so every sublist of a recipe is a recipe: this is
what lets a failure shrink.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

STEPS = (
    *("conv", "conv", "conv", "depthwise", "transposed", "dense", "attend"),
    *("quantize", "relu", "leaky", "clip", "norm", "scale", "reshape"),
    *("add", "concat", "split", "max_pool", "average", "upsample", "pad", "swap", "flatten"),
)
FRAMEWORKS = ("onnx", "torch")


@dataclass(frozen=True)
class Step:
    """One op, with every number that any kind of op reads."""

    kind: str
    channels: int = 1
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    weight_bits: int = 1
    act_bits: int = 1
    signed: bool = False
    per_channel: bool = False
    seed: int = 0
    back: int = 1
    style: int = 0  # How quantizers are spelt: an index, whatever the number of styles.
    rounding: int = 0  # Likewise.
    narrow: bool = False


@dataclass(frozen=True)
class Recipe:
    """A network, how it is built, and what it is fed."""

    seed: int
    steps: tuple[Step, ...]
    framework: str = "onnx"
    channels: int = 3
    size: int = 6
    axes: int = 2
    batch: int = 1
    dynamic: bool = False
    inputs: int = 1
    outputs: int = 1
    strategy: str = "auto"
    threads: int = 1


def recipe_of(seed: int, framework: str = "onnx") -> Recipe:
    """The recipe with a number: the same steps, whatever the framework."""
    source = random.Random(seed)
    steps = tuple(_step(source) for _ in range(source.randint(2, 9)))
    return Recipe(
        seed,
        steps,
        framework,
        channels=source.choice([1, 2, 3, 4, 5, 7, 9, 12, 17]),
        size=source.randint(3, 9),
        axes=source.choice([1, 2, 2, 2]),
        batch=source.choice([1, 1, 1, 2, 3]),
        dynamic=source.random() < 0.15,
        inputs=source.choice([1, 1, 1, 2]),
        outputs=source.choice([1, 1, 2]),
        strategy=source.choice(["auto", "auto", "xnor", "lut", "int8"]),
        threads=source.choice([1, 1, 2]),
    )


def _step(source: random.Random) -> Step:
    return Step(
        source.choice(STEPS),
        channels=source.choice([1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 17, 33, 64]),
        kernel=source.choice([1, 2, 3, 3]),
        stride=source.choice([1, 1, 2]),
        padding=source.choice([0, 1, 1]),
        dilation=source.choice([1, 1, 1, 2]),
        groups=source.choice([1, 1, 2, 3]),
        weight_bits=source.randint(1, 8),
        act_bits=source.randint(1, 8),
        signed=source.random() < 0.5,
        per_channel=source.random() < 0.4,
        seed=source.randrange(1 << 20),
        back=source.randint(1, 4),
        style=source.randrange(60),
        rounding=max(source.randint(-6, 6), 0),
        narrow=source.random() < 0.2,
    )


def simpler(recipe: Recipe) -> list[Recipe]:
    """Recipes that are simpler by one thing, the largest leaps first."""
    found = []
    count, length = len(recipe.steps), len(recipe.steps) // 2
    while length:
        for start in range(0, count, length):
            steps = recipe.steps[:start] + recipe.steps[start + length :]
            found.append(replace(recipe, steps=steps))
        length //= 2
    plain = Recipe(recipe.seed, recipe.steps, recipe.framework)
    for name in ("outputs", "inputs", "batch", "dynamic", "threads", "strategy", "size"):
        if getattr(recipe, name) != getattr(plain, name):
            found.append(replace(recipe, **{name: getattr(plain, name)}))
    if recipe.channels > 1:
        found.append(replace(recipe, channels=recipe.channels // 2))
    for i, step in enumerate(recipe.steps):
        for name in Step.__dataclass_fields__:
            value, least = getattr(step, name), Step.__dataclass_fields__[name].default
            if name in ("kind", "seed") or value == least:
                continue
            halves = [least] if isinstance(value, bool) else [least, value // 2, value - 1]
            for smaller in dict.fromkeys(halves):
                other = replace(step, **{name: smaller})
                found.append(
                    replace(recipe, steps=(*recipe.steps[:i], other, *recipe.steps[i + 1 :]))
                )
    return found
