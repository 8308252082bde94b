"""The shape of a float network: which layers come first and last, and which only scale others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One op of a float network.

    Parameters
    ----------
    inputs, outputs : tuple of str
        Names of tensors; constants aren't listed.
    layer : str
        Name of the layer that it is, if it can be quantized.
    multiplies : bool
        Whether it is an elementwise product.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layer: str = ""
    multiplies: bool = False


def first_layers(steps: Sequence[Step], inputs: Sequence[str]) -> set[str]:
    """Layers with no other layer between them and the network's inputs."""
    raw, found = set(inputs), set()
    for step in steps:
        if not raw.issuperset(step.inputs):
            continue
        if step.layer:
            found.add(step.layer)
        else:
            raw.update(step.outputs)
    return found


def last_layers(steps: Sequence[Step], outputs: Sequence[str]) -> set[str]:
    """Layers with no other layer between them and one of the network's outputs."""
    last, found = set(outputs), set()
    for step in reversed(steps):
        if last.isdisjoint(step.outputs):
            continue
        if step.layer:
            found.add(step.layer)
        else:
            last.update(step.inputs)
    return found


def gates(steps: Sequence[Step], shapes: dict[str, tuple[int, ...]]) -> set[str]:
    """Layers whose output only scales the channels of an image: squeeze-and-excite."""
    return {step.layer for step in steps if step.layer and _is_gate(step.outputs[0], steps, shapes)}


def _is_gate(start: str, steps: Sequence[Step], shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether a value without extent reaches a product with an image, and nothing else does."""
    followed = {start} if _is_pooled(shapes.get(start)) else set()
    found = False
    for step in steps:
        if followed.isdisjoint(step.inputs):
            continue
        for output in step.outputs:
            if _is_pooled(shapes.get(output)):
                followed.add(output)
            else:
                found = step.multiplies
                if not found:
                    return False
    return found


def _is_pooled(shape: tuple[int, ...] | None) -> bool:
    return shape is not None and (len(shape) == 2 or all(size == 1 for size in shape[2:]))
