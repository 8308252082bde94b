"""Symbolic sizes as a .pt2 archive spells them: source text, which torch evaluates."""

from __future__ import annotations

import ast

INT64_MAX = 2**63 - 1
ARITHMETIC = ("Add", "Mul", "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CeilDiv", "CleanDiv")
COMPARISONS = (
    *("Equality", "Unequality", "GreaterThan", "StrictGreaterThan", "LessThan", "StrictLessThan"),
    *("And", "Or", "Not"),
)
FUNCTIONS = frozenset(["Symbol", "Integer", "Float", *ARITHMETIC, *COMPARISONS])
OPTIONS = frozenset(["positive", "nonnegative", "integer", "evaluate", "precision"])
_ARGUMENTS = 64
_SYMBOL_CHARACTERS = 16


def check_expression(text: str) -> None:
    """Raise `ValueError` unless a text is made of sizes: symbols, numbers and arithmetic."""
    try:
        tree = ast.parse(text, mode="eval")
        is_good = all(map(_is_size, ast.walk(tree)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        is_good = False
    if not is_good:
        raise ValueError(f"{text[:80]!r} isn't an expression of sizes")


def _is_size(node: ast.AST) -> bool:
    """Whether a node is a call of `FUNCTIONS`, or a small number, a truth value or a symbol."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and len(node.args) <= _ARGUMENTS
    if isinstance(node, ast.Name):
        return node.id in FUNCTIONS
    if isinstance(node, ast.keyword):
        return node.arg in OPTIONS
    if isinstance(node, ast.Constant):
        return _is_small(node.value)
    return isinstance(node, (ast.Expression, ast.Load, ast.UnaryOp, ast.USub))


def _is_small(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _SYMBOL_CHARACTERS and value.isidentifier()
    return isinstance(value, bool) or (type(value) is int and value <= INT64_MAX)
