"""Who reads a variable."""

from __future__ import annotations

from collections import defaultdict

from tvm import relax

RESULT = relax.Var("result", relax.AnyType())  # Stands for the function that returns a variable.


def readers_of(function: relax.Function) -> dict[relax.Var, list[relax.Var]]:
    """Variables whose bindings read each variable, in order; `RESULT` where it is returned.

    Unlike `relax.analysis.udchain` this knows of results, and of blocks that aren't dataflow, as
    TVMScript without ``R.dataflow()`` has them.
    """
    readers: dict[relax.Var, list[relax.Var]] = defaultdict(list)
    for block in function.body.blocks:
        for binding in block.bindings:
            for var in relax.analysis.free_vars(binding.value):
                readers[var].append(binding.var)
    for var in relax.analysis.free_vars(function.body.body):
        readers[var].append(RESULT)
    return readers
