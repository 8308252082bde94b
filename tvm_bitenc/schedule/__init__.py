"""Schedule rules: how a packed op becomes a kernel, one file per instruction set.

A rule is a function from a call and a target to a `Kernel`, or None where it doesn't apply. Rules
are registered in named sets; a target file lists the sets to try, in order::

    @schedule_rule("my-isa")
    def conv2d(call, target):
        if not is_call_to(call, packed_conv2d_op): return None
        ...
        return Kernel(prim_func, constants)
"""

from ..kernel.kernel import Kernel
from .rule import (
    Rule,
    Space,
    cost_model,
    find_kernel,
    find_space,
    rule_sets,
    schedule_rule,
    search_space,
    strategy_costs,
)

__all__ = [
    "Kernel",
    "Rule",
    "Space",
    "cost_model",
    "find_kernel",
    "find_space",
    "rule_sets",
    "schedule_rule",
    "search_space",
    "strategy_costs",
]
