"""What lies between a float image and its planes becomes thresholds on the floats.

Before::

    y = R.multiply(R.clip(x, -1, 1), 4)                 # float32 NHWC
    planes = bitenc.pack(bitenc.encode(y, scale, zero_point))

After::

    planes = bitenc.packed_encode(x, thresholds)

The function from x to its code never falls, so the code is the number of thresholds that x
reaches, none for NaN. Each is the smallest float32 number that gets the code, found by bisection
on the graph's own float32 function: exact by construction, and no division is left.

Arithmetic whose result is read as a number too, as that of a residual is, stays: it is done anyway,
and joins what makes its operand.
"""

from __future__ import annotations

from collections.abc import Callable, Container

import numpy as np
import tvm
from tvm import relax

from ..op.packed import pack_op, packed_encode
from ..op.quantize import encode_op, encoding_of
from ..op.registration import is_call_to
from .analysis.float32 import MONOTONE, float_keys, floats_of_keys, op_name
from .analysis.readers import readers_of
from .analysis.steps import MAX_STEPS, Step, elementwise_step
from .rewrite import Graph, is_external, rewrite_calls

MAX_BOUNDS = 15  # Beyond, arithmetic is faster than so many comparisons.


@tvm.transform.module_pass(opt_level=0, name="bitenc.FuseEncode")
class FuseEncode:
    """Fuse encoders of few bits with the packing behind and the arithmetic in front of them."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        numbers = _numbers(mod)
        return rewrite_calls(mod, lambda call, graph: _fuse_encode(call, graph, numbers))


def _numbers(mod: tvm.IRModule) -> set[relax.Var]:
    """Variables that lead elsewhere than to encoders alone."""
    found: set[relax.Var] = set()
    for function in mod.functions.values():
        if not isinstance(function, relax.Function) or is_external(function):
            continue
        bound = {each.var: each.value for block in function.body.blocks for each in block.bindings}
        readers = readers_of(function)
        for var in reversed(bound):
            for reader in readers[var]:
                value = bound.get(reader)
                is_step = op_name(value) in MONOTONE and reader not in found
                is_step = is_step and len(relax.analysis.free_vars(value)) == 1
                if not is_step and not is_call_to(value, encode_op):
                    found.add(var)
    return found


def _fuse_encode(
    call: relax.Call, graph: Graph, numbers: Container[relax.Var]
) -> relax.Expr | None:
    if not is_call_to(call, pack_op):
        return None
    encode = graph.definition(call.args[0])
    if not is_call_to(encode, encode_op):
        return None
    encoding = encoding_of(encode)
    if encoding.is_per_channel or not encoding.has_rising_codes:
        return None
    if len(encoding.distinct_levels[1]) - 1 > MAX_BOUNDS:
        return None
    steps: list[Step] = []
    source = encode.args[0]
    while (step := elementwise_step(graph.definition(source), graph)) and step.is_rising:
        if source in numbers:
            break
        if str(step.argument.ty.dtype) != "float32" or len(steps) == MAX_STEPS:
            break
        steps.insert(0, step)
        source = step.argument

    def codes_of(x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            for step in steps:
                x = step.function(x)
            return encoding.quantize(x)

    thresholds = float_thresholds(codes_of, 2**encoding.bits - 1)
    return packed_encode(source, thresholds) if _hold_at_the_ends(thresholds, codes_of) else None


def _hold_at_the_ends(thresholds: np.ndarray, codes_of: Callable) -> bool:
    """Whether thresholds say what the function says of NaN, and of numbers that it makes NaN.

    Arithmetic that rises makes NaN of the largest numbers only, infinity among them.
    """
    ends = np.array([np.nan, -np.inf, np.inf], np.float32)
    return np.array_equal((ends[:, None] >= thresholds).sum(1), codes_of(ends))


def float_thresholds(codes_of: Callable[[np.ndarray], np.ndarray], steps: int) -> np.ndarray:
    """Smallest float32 number of each code of a function that never falls; inf if none has it.

    Parameters
    ----------
    codes_of : callable
        From float32 numbers to codes.
    steps : int
        Largest code.

    Returns
    -------
    ndarray of float32, shape (steps,)
    """
    codes = np.arange(1, steps + 1)
    infinity = float_keys(np.array([np.inf], np.float32))[0]
    first = np.full(steps, -infinity - 1, np.int64)  # Invariant: below `first` none reaches it,
    last = np.full(steps, infinity, np.int64)  # and at `last` it is reached, or nowhere.
    while np.any(first < last):
        middle = (first + last) // 2
        reached = codes_of(floats_of_keys(middle)) >= codes
        first, last = np.where(reached, first, middle + 1), np.where(reached, middle, last)
    found = floats_of_keys(last)
    if np.any(codes_of(found) < codes):  # Not even infinity reaches it: no number may.
        found = np.where(codes_of(found) < codes, np.float32(np.nan), found)
    return found.astype(np.float32)
