"""Which layer reads which layer's numbers: the edges of a network's graph, from its module."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from tvm import relax


@dataclass(frozen=True)
class Rows:
    """Layers that a call is.

    Parameters
    ----------
    count : int
    edges : list of (int, int)
        Source and reader among them; -1, -2, ... are the call's arguments.
    results : list of set of int
        Sources of each result, counted likewise.
    """

    count: int
    edges: list[tuple[int, int]]
    results: list[set[int]]


NO_ROWS = Rows(0, [], [])


def edges_of(main: relax.Function, rows_of: Callable[[relax.Call], Rows]) -> list[tuple[int, int]]:
    """Return edges between layers, whatever lies between them.

    Parameters
    ----------
    main : relax.Function
    rows_of : callable
        What layers a call is.

    Returns
    -------
    list of (int, int)
        Source and reader, by their positions among the layers in the order in which they run. The
        source -1 is an input of the network.
    """
    sources: dict[relax.Var, list[set[int]]] = {var: [{-1}] for var in main.params}
    edges: list[tuple[int, int]] = []
    count = 0
    for block in main.body.blocks:
        for binding in block.bindings:
            value, rows = binding.value, NO_ROWS
            if isinstance(value, relax.Call):
                rows = rows_of(value)
            if not rows.count:
                sources[binding.var] = _sources(value, sources)
                continue
            given = [set().union(*_sources(argument, sources)) for argument in value.args]

            for source, reader in rows.edges:
                found = _outer(source, given, count)
                edges += [(each, count + reader) for each in sorted(found)]
            sources[binding.var] = [
                set().union(*(_outer(source, given, count) for source in result))
                for result in rows.results
            ]
            count += rows.count
    return edges


def _outer(source: int, given: list[set[int]], first: int) -> set[int]:
    """Sources of a call's arguments, or one of its own layers, by its position among all."""
    return given[-1 - source] if source < 0 else {first + source}


def _sources(value: relax.Expr, sources: dict[relax.Var, list[set[int]]]) -> list[set[int]]:
    """Sources of an expression, or of each field of a tuple."""
    if isinstance(value, relax.Var):
        return sources.get(value, [])
    if isinstance(value, relax.TupleGetItem):
        fields = _sources(value.tuple_value, sources)
        return fields[value.index : value.index + 1] if len(fields) > 1 else fields
    if isinstance(value, relax.Tuple):
        return [set().union(*_sources(field, sources)) for field in value.fields]
    arguments = (_sources(part, sources) for part in getattr(value, "args", ()))
    return [set().union(*itertools.chain.from_iterable(arguments))]
