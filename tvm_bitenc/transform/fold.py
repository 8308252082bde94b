"""Batch-norm, activation and re-quantization become integer thresholds.

Before::

    y = R.astype(acc, "float32"); y1 = R.multiply(y, gamma); y2 = R.add(y1, beta)
    y3 = R.clip(y2, -1, 1); y4 = R.nn.max_pool2d(y3)
    codes = bitenc.encode(y4, scale, zero_point)

After::

    lv = bitenc.threshold(acc, thresholds, direction)
    codes = R.nn.max_pool2d(lv)

Where the function between accumulator and code never turns, channel by channel, its code is the
number of thresholds that the accumulator reaches. Each threshold is the smallest integer at which
the graph's own float32 function, evaluated op by op, reaches the code: exact by construction.
Pooling commutes with it, because the encoder never falls as its input rises.

What `steps` can't read stays float arithmetic, computed as the graph computes it: a function that
turns (PReLU with a negative slope, an absolute value), and one whose last bits depend on the
mathematical library of the CPU (sigmoid, tanh, exp).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tvm
from tvm import relax

from ..bounds import INT32_MAX
from ..branches import accumulator_range
from ..encoding import Encoding
from ..kernel.epilogue.affine_fit import codes_at_thresholds
from ..kernel.epilogue.compared import MAX_COMPARED_AT_ALL
from ..layer import FloatStep
from ..op.branch import geometry_of
from ..op.quantize import encode_op, encoding_of
from ..op.registration import is_call_to, required_constant
from ..op.threshold import threshold
from .analysis.code_steps import code_steps
from .analysis.float32 import op_name
from .analysis.readers import readers_of
from .analysis.shaping import SHAPING
from .analysis.steps import Chain, Step, elementwise_step, trace
from .rewrite import Graph, rewrite_calls
from .visit import visit_calls

CodesOf = Callable[[np.ndarray], "np.ndarray | None"]
LIMITS = ("relax.clip", "relax.maximum", "relax.minimum", "relax.nn.relu")
MAX_ENUMERATED = 1 << 23  # Integers to try, all channels together, before a layer stays in float.
CHUNK = 1 << 20  # As many at once.
ALWAYS, NEVER = -INT32_MAX - 1, INT32_MAX  # No accumulator is as low, and none as high.


@tvm.transform.module_pass(opt_level=0, name="bitenc.Fold")
class Fold:
    """Fold what lies between an accumulator and an encoder, wherever it is monotone."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        encoded = _only_encoded(mod)
        return rewrite_calls(mod, lambda call, graph: _fold(call, graph, encoded))


def _only_encoded(mod: tvm.IRModule) -> set[relax.Var]:
    """Variables that nothing but encoders read, be it through arithmetic that folds."""
    encoders: set[relax.Var] = set()
    folding: set[relax.Var] = set()

    def note(call: relax.Call, graph: Graph) -> None:
        if is_call_to(call, encode_op):
            encoders.add(graph.var)
        elif op_name(call) in SHAPING or elementwise_step(call, graph) is not None:
            folding.add(graph.var)

    visit_calls(mod, note)
    found: set[relax.Var] = set()
    for function in mod.functions.values():
        if not isinstance(function, relax.Function):
            continue
        readers = readers_of(function)
        bindings = [binding for block in function.body.blocks for binding in block.bindings]
        for binding in reversed(bindings):
            users = readers.get(binding.var, [])
            if users and all(u in encoders or (u in found and u in folding) for u in users):
                found.add(binding.var)
    return found


def _fold(call: relax.Call, graph: Graph, encoded: set[relax.Var]) -> relax.Expr | None:
    if not is_call_to(call, encode_op):
        return None
    encoding = encoding_of(call)
    if encoding.is_per_channel or not encoding.has_rising_codes:
        return None
    chain = trace(call.args[0], graph)
    if chain is None or chain.accumulator_var not in encoded:
        return None  # Where floats are needed as well, the accumulators alone don't do.
    found = _search(chain, encoding)
    if found is None:
        return None
    steps = _code_steps(chain, encoding, *found)
    codes = graph.emit(threshold(chain.accumulator_var, *found, code_steps=steps))
    for shaping in chain.shaping:
        codes = graph.emit(relax.Call(shaping.op, [codes, *shaping.args[1:]], shaping.attrs))
    return codes


def _search(chain: Chain, encoding: Encoding) -> tuple[np.ndarray, np.ndarray] | None:
    low, high = range_of(chain.accumulator)
    codes_of = _function(chain, chain.steps, encoding)
    if not all(step.is_monotone for step in chain.steps) and not is_monotone(codes_of, low, high):
        return None
    return find_thresholds(codes_of, low, high, 2**encoding.bits - 1)


def _function(chain: Chain, steps: Sequence[Step], encoding: Encoding) -> CodesOf:
    """Return the graph's function from accumulators to codes, through these steps of a chain."""
    spatial = (1,) * (len(chain.accumulator.ty.shape) - 2)

    def codes_of(acc: np.ndarray) -> np.ndarray | None:
        """Codes of accumulators (rows, channels)."""
        x = acc.astype(np.int32).reshape(*acc.shape, *spatial)
        for step in steps:
            with np.errstate(all="ignore"):
                x = step.function(x)
            if x.shape != (*acc.shape, *spatial) or np.isnan(x).any():
                return None  # A constant that varies over the image, or a value that is no number.
        return encoding.quantize(x).reshape(acc.shape)

    return codes_of


def _code_steps(
    chain: Chain, encoding: Encoding, thresholds: np.ndarray, direction: np.ndarray
) -> tuple[FloatStep, ...]:
    """Return what computes the codes where there are too many thresholds to compare with each.

    Limits that those of the code itself imply are left out: ``clip(x, 0, 1) * 255`` is limited to
    0 ... 255 once more. The function still never turns, so it gives every code if it does at each
    threshold and just below it.
    """
    if len(thresholds) <= MAX_COMPARED_AT_ALL:
        return ()
    steps: Sequence[Step] = chain.steps
    if all(step.is_monotone for step in steps):
        acc, codes = codes_at_thresholds(
            thresholds.astype(np.int64), direction.astype(np.int64), range_of(chain.accumulator)
        )
        for step in [step for step in steps if op_name(step.call) in LIMITS]:
            others = [other for other in steps if other is not step]
            found = _function(chain, others, encoding)(acc)
            if found is not None and np.array_equal(found, codes):
                steps = others
    return code_steps(steps, encoding, len(direction))


def is_monotone(codes_of: CodesOf, low: np.ndarray, high: np.ndarray) -> bool:
    """Whether a function from integers to codes never turns, by trying every integer.

    A float32 function may turn where its codes don't: a hard-swish falls just below 0, by less
    than a step of most quantizers. Also False where there are too many integers to try.

    Parameters
    ----------
    codes_of, low, high
        As for `find_thresholds`.
    """
    channels, longest = len(low), int((high - low).max()) + 1
    if channels * longest > MAX_ENUMERATED:
        return False
    rises = falls = np.zeros(channels, bool)
    rows = max(CHUNK // channels, 2)
    for start in range(0, longest, rows - 1):  # Neighbouring chunks share a row.
        acc = np.minimum(low + np.arange(start, start + rows)[:, None], high)
        codes = codes_of(acc)
        if codes is None:
            return False
        change = np.diff(codes.astype(np.int16), axis=0)
        rises, falls = rises | (change > 0).any(axis=0), falls | (change < 0).any(axis=0)
    return not np.any(rises & falls)


def range_of(call: relax.Call) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the reachable accumulators of a branch op, int64, one per output channel."""
    weight_codes, offset = map(required_constant, call.args[1:3])
    return accumulator_range(weight_codes, offset, geometry_of(call))


def find_thresholds(
    codes_of: CodesOf, low: np.ndarray, high: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Thresholds of a monotone function from integers to codes, by bisection.

    Parameters
    ----------
    codes_of : callable
        From integers (rows, channels) to codes of the same shape; None where it has no value.
    low, high : ndarray of int64, shape (channels,)
        Smallest and largest integers of interest.
    steps : int
        Largest code.

    Returns
    -------
    (thresholds, direction) or None
        int32 (steps, channels) and (channels,): the code of n is the number of thresholds that
        ``direction * n`` reaches.
    """
    at_low, at_high = codes_of(low[None]), codes_of(high[None])
    if at_low is None or at_high is None:
        return None
    direction = np.where(at_high[0] >= at_low[0], 1, -1).astype(np.int64)
    codes = np.arange(1, steps + 1)[:, None]
    # Invariant, in terms of n * direction: below `first` no code is reached, at `last` it is.
    first = np.broadcast_to(np.minimum(low * direction, high * direction), (steps, len(low)))
    last = np.broadcast_to(np.maximum(low * direction, high * direction) + 1, first.shape)
    end = last
    while np.any(first < last):
        middle = (first + last) // 2
        found = codes_of(np.clip(middle * direction, low, high))
        if found is None:
            return None
        reached = found >= codes
        first, last = (
            np.where(reached | (first == last), first, middle + 1),
            np.where(reached, middle, last),
        )
    lowest = np.minimum(low * direction, high * direction)
    thresholds = np.where(last == end, NEVER, np.where(last == lowest, ALWAYS, last))
    return thresholds.astype(np.int32), direction.astype(np.int32)
