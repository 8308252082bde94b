"""Pass 3: batch-norm, activation and re-quantization become integer thresholds.

Before::

    y = R.astype(acc, "float32"); y1 = R.multiply(y, gamma); y2 = R.add(y1, beta)
    y3 = R.clip(y2, -1, 1); y4 = R.nn.max_pool2d(y3)
    codes = bitenc.encode(y4, scale, zero_point)

After::

    lv = bitenc.threshold(acc, thresholds, direction)
    codes = R.nn.max_pool2d(lv)

The float function between accumulator and code is monotone per channel, so its code is the number
of thresholds that the accumulator reaches. Each threshold is the smallest integer at which the
graph's own float32 function, evaluated op by op, reaches the code: exact by construction. Pooling
commutes with it, because the encoder never falls as its input rises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from ..encoding import INT32_MAX, Encoding
from ..op.branch import branch_conv2d_op, branch_dense_op, geometry_of
from ..op.quantize import encode_op, encoding_of, quantize_op
from ..op.registration import constant_value, is_call_to
from ..op.threshold import threshold
from ..te.conv_layer import accumulator_range
from .float32 import ELEMENTWISE, evaluate, op_name
from .lower import SHAPING
from .rewrite import Graph, rewrite_calls

ALWAYS, NEVER = -INT32_MAX - 1, INT32_MAX  # No accumulator is as low, and none as high.


@tvm.transform.module_pass(opt_level=0, name="bitenc.Fold")
class Fold:
    """Fold what lies between an accumulator and an encoder, wherever it is monotone."""

    def transform_module(self, mod: tvm.IRModule, _ctx) -> tvm.IRModule:
        """Rewrite the module."""
        encoded = _only_encoded(mod)
        return rewrite_calls(mod, lambda call, graph: _fold(call, graph, encoded))


def _only_encoded(mod: tvm.IRModule) -> set[relax.Var]:
    """Variables that nothing but encoders read, be it through other variables."""
    found: set[relax.Var] = set()
    for function in mod.functions.values():
        if not isinstance(function, relax.Function):
            continue
        for block in function.body.blocks:
            readers = relax.analysis.udchain(block)
            values = {binding.var: binding.value for binding in block.bindings}
            for var in reversed(list(values)):
                users = list(readers.get(var, []))
                if users and all(
                    is_call_to(values.get(user), encode_op) or user in found for user in users
                ):
                    found.add(var)
    return found


@dataclass(frozen=True)
class Step:
    """One elementwise float32 function on the way from an accumulator to an encoder.

    Parameters
    ----------
    function : callable
        Monotone per channel; from an array to one of the same shape.
    argument : relax.Expr
        Where its input comes from.
    is_rising : bool
        It is one function for all elements, and never falls.
    """

    function: Callable[[np.ndarray], np.ndarray]
    argument: relax.Expr
    is_rising: bool


@dataclass
class Chain:
    """What lies between an accumulator and an encoder.

    Parameters
    ----------
    accumulator : relax.Call
        The branch op.
    accumulator_var : relax.Expr
    shaping : list of relax.Call
        Pooling and reshaping, in the order they happen.
    steps : list of Step
        In the order they happen.
    """

    accumulator: relax.Call
    accumulator_var: relax.Expr
    shaping: list[relax.Call]
    steps: list[Step]


def _fold(call: relax.Call, graph: Graph, encoded: set[relax.Var]) -> relax.Expr | None:
    if not is_call_to(call, encode_op):
        return None
    encoding = encoding_of(call)
    if encoding.is_per_channel or not encoding.is_positional:
        return None
    chain = trace(call.args[0], graph)
    if chain is None or chain.accumulator_var not in encoded:
        return None  # Where floats are needed as well, the accumulators alone don't do.
    found = _search(chain, encoding)
    if found is None:
        return None
    codes = graph.emit(threshold(chain.accumulator_var, *found))
    for shaping in chain.shaping:
        codes = graph.emit(relax.Call(shaping.op, [codes, *shaping.args[1:]], shaping.attrs))
    return codes


def trace(expr: relax.Expr, graph: Graph) -> Chain | None:
    """Walk from an encoder's input back to an accumulator; None if anything else is met."""
    shaping: list[relax.Call] = []
    steps: list[Step] = []
    while True:
        var, expr = expr, graph.definition(expr)
        if is_call_to(expr, branch_conv2d_op) or is_call_to(expr, branch_dense_op):
            return Chain(expr, var, shaping[::-1], steps[::-1])
        if op_name(expr) in SHAPING:
            # Steps met so far come after the shaping: they must hold for every element alike.
            if not all(step.is_rising for step in steps):
                return None
            shaping.append(expr)
            expr = expr.args[0]
            continue
        step = elementwise_step(expr, graph)
        if step is None:
            return None
        steps.append(step)
        expr = step.argument


def elementwise_step(expr: relax.Expr, graph: Graph) -> Step | None:
    """Read one op as a step, if it is one."""
    if op_name(expr) == "relax.astype" and str(expr.attrs.dtype) == "float32":
        return Step(lambda x: x.astype(np.float32), expr.args[0], True)
    if is_call_to(expr, quantize_op):
        encoding = encoding_of(expr)
        if encoding.is_per_channel:
            return None
        return Step(lambda x: encoding.dequantize(encoding.quantize(x)), expr.args[0], True)
    if op_name(expr) in ELEMENTWISE:
        return _arithmetic_step(expr, graph)
    return None


def _arithmetic_step(call: relax.Call, graph: Graph) -> Step | None:
    """Read an op of one variable and constants."""
    name, values = op_name(call), [evaluate(argument, graph) for argument in call.args]
    variables = [i for i, value in enumerate(values) if value is None]
    only_first = name in ("relax.divide", "bitenc.multiply_add")
    if len(variables) != 1 or (only_first and variables != [0]):
        return None
    (variable,) = variables
    constants = [value for value in values if value is not None]
    falls = name == "relax.negative" or (name == "relax.subtract" and variable == 1)
    if name in ("relax.multiply", "relax.divide", "bitenc.multiply_add"):
        falls = not np.all(constants[0] >= 0)

    def function(x: np.ndarray) -> np.ndarray:
        return ELEMENTWISE[name](*(x if value is None else value for value in values))

    is_rising = not falls and all(constant.size == 1 for constant in constants)
    return Step(function, call.args[variable], is_rising)


def _search(chain: Chain, encoding: Encoding) -> tuple[np.ndarray, np.ndarray] | None:
    low, high = range_of(chain.accumulator)
    spatial = (1,) * (len(chain.accumulator.ty.shape) - 2)

    def codes_of(acc: np.ndarray) -> np.ndarray | None:
        """Codes of accumulators (rows, channels), by the graph's function."""
        x = acc.astype(np.int32).reshape(*acc.shape, *spatial)
        for step in chain.steps:
            with np.errstate(all="ignore"):
                x = step.function(x)
            if x.shape != (*acc.shape, *spatial) or np.isnan(x).any():
                return None  # A constant that varies over the image, or a value that is no number.
        return encoding.quantize(x).reshape(acc.shape)

    return find_thresholds(codes_of, low, high, 2**encoding.bits - 1)


def range_of(call: relax.Call) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the reachable accumulators of a branch op, int64, one per output channel."""
    geometry, weight_codes = geometry_of(call), constant_value(call.args[1])
    coefficients = geometry.weight_coefficients
    weight = Encoding(len(coefficients), 1.0, 0.0, coefficients)
    integers = weight.bipolar(weight_codes).reshape(len(weight_codes), -1).astype(np.int64)
    return accumulator_range(integers + constant_value(call.args[2])[:, None], geometry)


def find_thresholds(
    codes_of: Callable[[np.ndarray], np.ndarray | None],
    low: np.ndarray,
    high: np.ndarray,
    steps: int,
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
