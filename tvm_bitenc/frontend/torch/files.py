"""Exported programs in files, read without running code of the file's own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ...decode import Source
from ...errors import UnsupportedError, first_line
from .archive import GRAPH, rebuilt
from .schema import Graph, Node, Program

CURE = (
    "Write it with torch.export.save of this torch, without objects of your own; if you trust the"
    " file, give from_torch what torch.export.load makes of it"
)
# Operators of torch that return no tensor: sizes, and checks of them.
ABOUT_SIZES = frozenset(
    f"torch.ops.aten.{name}"
    for name in ("sym_size.int", "sym_size.default", "sym_stride.int", "sym_numel.default",
                 "sym_storage_offset.default", "item.default", "_local_scalar_dense.default",
                 "_assert_scalar.default", "_assert_async.msg", "_assert_async.default",
                 "_assert_tensor_metadata.default", "sym_constrain_range.default",
                 "sym_constrain_range_for_size.default")
)  # fmt: skip


def load_program(path: Path) -> torch.export.ExportedProgram:
    """Read what `torch.export.save` wrote.

    Raises
    ------
    UnsupportedError
        If there is no such file, it isn't one of these, or it holds anything but plain tensors
        and calls of torch's operators: pickled objects, other functions, libraries.
    """
    # Their ops have to be known before.
    import torch.ao.quantization.fx._decomposed

    from ... import nn  # noqa: F401

    source = Source(str(path), CURE, UnsupportedError, GRAPH)
    archive, program = rebuilt(path, source)
    _check_operators(program, source)
    with _reported() as reported:
        try:
            return torch.export.load(archive)
        except Exception as error:  # Of damage to the file, torch has no common class of errors.
            reason = first_line(next(iter(reported), error))
            raise source.fault(f"isn't an exported program ({reason})") from None


def _check_operators(program: Program, source: Source) -> None:
    """Raise for operators that aren't functions of tensors alone."""
    checked: set[str] = set()
    for node in _nodes(program.graph_module.graph):
        if node.target not in checked and not _is_of_tensors(node.target):
            raise source.fault(f"calls {node.target}, which isn't a function of tensors")
        checked.add(node.target)


def _nodes(graph: Graph) -> Iterator[Node]:
    for node in graph.nodes:
        yield node
        for argument in node.inputs:
            if argument.arg.as_graph:
                yield from _nodes(argument.arg.as_graph.graph)


def _is_of_tensors(target: str) -> bool:
    """Whether an operator is torch's, and computes tensors of tensors and numbers.

    Some don't: `aten.from_file` reads a file that its argument names, `aten.save` writes one.
    """
    if not target.startswith("torch.ops.") or "higher_order" in target or target in ABOUT_SIZES:
        return True
    namespace, name, overload = target.removeprefix("torch.ops.").split(".")
    try:
        operator = getattr(getattr(getattr(torch.ops, namespace), name), overload)
        schema = operator._schema
    except (AttributeError, RuntimeError):
        return False
    kinds = [str(result.type) for result in schema.returns]
    is_file = any(argument.name == "filename" for argument in schema.arguments)
    return bool(kinds) and not is_file and all("Tensor" in kind for kind in kinds)


@contextmanager
def _reported() -> Iterator[list[BaseException]]:
    """Collect the errors that torch logs, with tracebacks, in place of raising them."""
    errors: list[BaseException] = []

    def collect(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            errors.append(record.exc_info[1])
        return False

    logger = logging.getLogger("torch.export")
    logger.addFilter(collect)
    try:
        yield errors
    finally:
        logger.removeFilter(collect)
