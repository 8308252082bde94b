"""Small torch modules with inputs: samples of torch's own OpInfo, and forms written by hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_flatten, tree_unflatten

DTYPES = (torch.float32, torch.int64, torch.bool)
# They run on GPUs alone.
NOT_HERE = "jiterator"


@dataclass(frozen=True)
class Form:
    """One way to call an operator.

    Attributes
    ----------
    operator : str
        Name, shared by all forms of the operator.
    module : torch.nn.Module
    inputs : tuple of torch.Tensor
    """

    operator: str
    module: nn.Module
    inputs: tuple[torch.Tensor, ...]


class Call(nn.Module):
    """Calls a function with inputs in the place of some tensors of its arguments.

    Parameters
    ----------
    function : callable
    arguments : tuple and dict
        Of the function.
    constants : bool
        Whether only the first tensor is an input; the others are then buffers.
    """

    def __init__(self, function: Callable, arguments: tuple[tuple, dict], constants: bool = False):
        super().__init__()
        self.function = function
        self.leaves, self.tree = tree_flatten(arguments)
        tensors = [i for i, leaf in enumerate(self.leaves) if isinstance(leaf, torch.Tensor)]
        self.variable = tensors[: 1 if constants else None]
        for i in tensors[len(self.variable) :]:
            self.register_buffer(f"constant_{i}", self.leaves[i])

    @property
    def inputs(self) -> tuple[torch.Tensor, ...]:
        """What `forward` is called with."""
        return tuple(self.leaves[i] for i in self.variable)

    def forward(self, *tensors):
        given = dict(zip(self.variable, tensors))
        leaves = [
            given[i] if i in given else getattr(self, f"constant_{i}", leaf)
            for i, leaf in enumerate(self.leaves)
        ]
        args, options = tree_unflatten(leaves, self.tree)
        return self.function(*args, **options)


def opinfo_forms(count: int) -> Iterator[Form]:
    """Forms of each of torch's operators: unlike samples, every second with constant operands."""
    for info in op_db:
        if info.name.startswith(NOT_HERE):
            continue
        for k, sample in enumerate(_unlike(_samples(info), count)):
            arguments = ((sample.input, *sample.args), sample.kwargs)
            call = Call(info.op, arguments, constants=k % 2 == 1)
            yield Form(info.formatted_name, call, call.inputs)


def _samples(info) -> list:
    dtype = next((d for d in DTYPES if d in info.dtypes), None)
    if dtype is None:
        return []
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(info.sample_inputs("cpu", dtype, requires_grad=False))


def _unlike(samples: Sequence, count: int) -> list:
    """Choose samples, each with as many traits as possible that no earlier one has."""
    traits = [_traits(sample) for sample in samples]
    left, seen, chosen = list(range(len(samples))), set(), []
    while left and len(chosen) < count:
        best = max(left, key=lambda i: len(traits[i] - seen))
        left.remove(best)
        seen |= traits[best]
        chosen.append(samples[best])
    return chosen


def _traits(sample) -> set:
    named = [*enumerate((sample.input, *sample.args)), *sample.kwargs.items()]
    traits = {("arguments", tuple(name for name, _ in named))}
    for name, value in named:
        for leaf in tree_flatten(value)[0]:
            if isinstance(leaf, torch.Tensor):
                traits |= {(name, leaf.ndim, leaf.dtype), (name, 0 in leaf.shape)}
            else:
                traits |= {(name, repr(leaf))}
    return traits
