"""Which layer reads which layer's numbers: the edges of a network's graph, from its module."""

from __future__ import annotations

from collections.abc import Callable

from tvm import relax


def edges_of(main: relax.Function, is_layer: Callable[[relax.Call], bool]) -> list[tuple[int, int]]:
    """Return edges between some calls, whatever lies between them.

    Parameters
    ----------
    main : relax.Function
    is_layer : callable
        Tells which calls are layers.

    Returns
    -------
    list of (int, int)
        Source and reader, by their positions among the layers in the order in which they run. The
        source -1 is an input of the network.
    """
    sources: dict[relax.Var, set[int]] = {var: {-1} for var in main.params}
    edges: list[tuple[int, int]] = []
    count = 0
    for block in main.body.blocks:
        for binding in block.bindings:
            found = _sources(binding.value, sources)
            if isinstance(binding.value, relax.Call) and is_layer(binding.value):
                edges += [(source, count) for source in sorted(found)]
                found, count = {count}, count + 1
            sources[binding.var] = found
    return edges


def _sources(value: relax.Expr, sources: dict[relax.Var, set[int]]) -> set[int]:
    if isinstance(value, relax.Var):
        return set(sources.get(value, ()))
    if isinstance(value, relax.TupleGetItem):
        return _sources(value.tuple_value, sources)
    parts = value.fields if isinstance(value, relax.Tuple) else getattr(value, "args", ())
    return set().union(*(_sources(part, sources) for part in parts))
