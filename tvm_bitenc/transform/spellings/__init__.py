"""How people spell quantizers: one function each, from the last call of a spelling.

Each gets ``(call, graph)`` and returns what computes the same float32 numbers, or None. What none
of them knows isn't lost: `canonicalize` looks at the levels of whatever a layer reads.
"""

from .arithmetic import divide_round_clip_multiply
from .casts import cast_there_and_back
from .comparison import cast_comparison, where_comparison
from .filled import filled_operand
from .straight_through import straight_through

SPELLINGS = (
    cast_there_and_back,
    straight_through,
    where_comparison,
    cast_comparison,
    divide_round_clip_multiply,
    filled_operand,
)
__all__ = ["SPELLINGS"]
