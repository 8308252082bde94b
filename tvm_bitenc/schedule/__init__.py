"""Schedule rules: how a packed op becomes a kernel, one file per instruction set.

A `RuleSet` is a value: rules, each a function from a call and a target to a `Kernel`, or None where
it doesn't apply; what may be tuned; and what strategies cost. All that ship stand in `RULE_SETS`;
a target file names the ones to try, in order. One of your own goes in beside the file that names
it, and nothing else changes::

    def conv2d(call, target):
        if not is_call_to(call, packed_conv2d_op):
            return None
        ...
        return Kernel(prim_func, constants)

    mine = RuleSet("my-isa", rules=(conv2d,))
    be.build(mod, target=load_target("board.toml", rule_sets=[mine]))

What an instruction set shares with others, `vector_rules` makes from its `Isa`.
"""

from ..kernel.kernel import Kernel
from ..te.function import prim_func
from .rule import Rule, RuleSet, Space
from .rule_sets import (
    RULE_SETS,
    best_macs,
    find_kernel,
    find_space,
    isa_of,
    own_features,
    rule_sets_of,
    strategy_costs,
)

__all__ = [
    "RULE_SETS",
    "Kernel",
    "Rule",
    "RuleSet",
    "Space",
    "best_macs",
    "find_kernel",
    "find_space",
    "isa_of",
    "own_features",
    "prim_func",
    "rule_sets_of",
    "strategy_costs",
]
