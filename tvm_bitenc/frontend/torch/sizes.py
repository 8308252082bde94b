"""Sizes of tensors: torch's symbols as Relax has them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce

import sympy
import torch
from tvm import tirx
from tvm.ir import Expr

from ...errors import UnsupportedError

FIXED = "Export the model with fixed sizes"

_FUNCTIONS = {
    "Add": lambda *terms: reduce(operator.add, terms),
    "Mul": lambda *factors: reduce(operator.mul, factors),
    "FloorDiv": tirx.floordiv,
    "CleanDiv": tirx.floordiv,
    "Mod": tirx.floormod,
    "PythonMod": tirx.floormod,
    "Max": lambda *terms: reduce(tirx.max, terms),
    "Min": lambda *terms: reduce(tirx.min, terms),
}


class Sizes:
    """Relax's expressions of torch's symbolic sizes."""

    def __init__(self) -> None:
        self._symbols: dict[str, Expr] = {}

    def learn(self, sizes: Sequence, shape: Sequence) -> None:
        """Note the variables that stand for the symbols of an input's sizes."""
        for size, variable in zip(sizes, shape):
            expression = _expression(size)
            if isinstance(expression, sympy.Symbol):
                self._symbols.setdefault(str(expression), variable)

    def shape(self, tensor: torch.Tensor) -> list[int | Expr]:
        """Shape of a fake tensor."""
        return [self(size) for size in tensor.shape]

    def __call__(self, size: int | torch.SymInt) -> int | Expr:
        """One size: a number, or an expression of the inputs' sizes."""
        return self._converted(_expression(size))

    def _converted(self, expression: int | sympy.Expr) -> int | Expr:
        if isinstance(expression, int):
            return expression
        if expression.is_Integer:
            return int(expression)
        known = self._symbols.get(str(expression))
        if known is not None:
            return known
        function = _FUNCTIONS.get(type(expression).__name__)
        if function is None:
            raise UnsupportedError(
                f"size {expression}", "isn't computed from the inputs' sizes alone", FIXED
            )
        arguments = [self._converted(argument) for argument in expression.args]
        return function(*(_int64(argument) for argument in arguments))


def _expression(size: int | torch.SymInt) -> int | sympy.Expr:
    return size.node.expr if isinstance(size, torch.SymInt) else int(size)


def _int64(value: int | Expr) -> Expr:
    return tirx.IntImm("int64", value) if isinstance(value, int) else value
