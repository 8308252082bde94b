"""Functions that are constant piece by piece: their bounds, their levels, and what is none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.op import quantize
from tvm_bitenc.transform.analysis.float32 import float_keys, floats_of_keys
from tvm_bitenc.transform.analysis.pieces import (
    Pieces,
    bounds_between,
    encoding_by_steps,
    pieces_of,
)
from tvm_bitenc.transform.visit import visit_calls

op, f32 = relax.op, np.float32
floats = st.floats(-(2.0**120), 2.0**120, width=32)


def c(value):
    return relax.const(f32(value))


def ask(module_of, question, body, shape=(2, 3)):
    """Answer a question about the argument of the outermost cosine."""
    answers = []

    def note(call, graph):
        if call.op.name == "relax.cos":
            answers.append(question(call.args[0], graph))

    visit_calls(module_of([shape], lambda b, x: b.emit(op.cos(body(b, x)))), note)
    return answers[-1]


def step(b, x, bound, relation=op.greater):
    return b.emit(op.astype(b.emit(relation(x, c(bound))), "float32"))


def total(b, *terms):
    found = terms[0]
    for term in terms[1:]:
        found = b.emit(op.add(found, term))
    return found


def times(b, x, factor):
    return b.emit(op.multiply(x, c(factor)))


@given(bounds=st.lists(floats, min_size=1, max_size=9, unique=True))
def test_bounds_are_the_least_numbers_of_pieces(bounds):
    bounds = np.unique(f32(bounds) + f32(0))
    found = bounds_between(lambda x: (x[:, None] >= bounds).sum(1).astype(f32))
    assert np.array_equal(found, bounds)
    below = (np.nextafter(bounds, -np.inf)[:, None] >= bounds).sum(1)
    assert np.array_equal(below, np.arange(len(bounds)))


def test_too_many_pieces():
    assert bounds_between(np.rint) is None
    assert len(bounds_between(lambda x: np.rint(x.clip(-99, 99)))) == 198


@given(x=floats)
def test_keys_are_in_the_order_of_floats(x):
    x = np.array([x], f32)
    assert np.array_equal(floats_of_keys(float_keys(x)), x)
    assert float_keys(np.nextafter(x, f32(np.inf))) > float_keys(x)


def uneven(b, x):
    return total(b, *(times(b, step(b, x, v), k) for v, k in ((-0.5, 3), (0.25, 4), (1, 5))))


def nested(b, x):
    inner = b.emit(op.where(b.emit(op.greater(x, c(0))), c(0.5), c(0)))
    return b.emit(op.where(b.emit(op.greater_equal(x, c(1))), c(1.75), inner))


def of_masks(b, x):
    above = b.emit(op.greater(x, c(0)))
    below = b.emit(op.less_equal(x, c(1)))
    inside = b.emit(op.astype(b.emit(op.logical_and(above, below)), "float32"))
    beyond = b.emit(op.astype(b.emit(op.logical_not(below)), "float32"))
    return total(b, times(b, inside, 2), times(b, beyond, 7))


def behind_arithmetic(b, x):
    y = b.emit(op.multiply(b.emit(op.clip(x, -1, 1)), c(4)))
    return total(b, step(b, y, 2), times(b, step(b, y, -2, op.greater_equal), 2))


def quantized_twice(b, x):
    half = b.emit(quantize(x, Encoding.unsigned(1, 1.0)))
    return total(b, half, times(b, b.emit(quantize(x, Encoding.unsigned(1, 4.0))), 0.25))


def next_to(value):
    return np.nextafter(f32(value), f32(np.inf))


FOUND = {
    "sum of steps": (uneven, [next_to(-0.5), next_to(0.25), next_to(1)], [0, 3, 7, 12]),
    "where in where": (nested, [next_to(0), 1], [0, 0.5, 1.75]),
    "masks": (of_masks, [next_to(0), next_to(1)], [0, 2, 7]),
    "behind arithmetic": (behind_arithmetic, [-2, next_to(2)], [0, 2, 3]),
    "quantizers": (quantized_twice, [next_to(0.5), next_to(2)], [0, 1, 2]),
    "a falling difference": (
        lambda b, x: step(b, b.emit(op.subtract(c(1), x)), 0, op.less),
        [next_to(1)],
        [0, 1],
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_is_found(name, module_of):
    body, bounds, levels = FOUND[name]

    def question(expr, graph):
        return next(pieces_of(expr, graph)), encoding_by_steps(expr, graph)

    pieces, (_, encoding) = ask(module_of, question, body)
    assert list(encoding.bounds) == list(map(float, bounds))
    assert encoding.dequantize(np.array(encoding.codes, np.uint8)).tolist() == levels
    if name != "a falling difference":
        assert (
            pieces.bounds.tolist() == list(map(float, bounds)) and pieces.levels.tolist() == levels
        )


def per_channel(b, x):
    condition = b.emit(op.greater(x, relax.const(f32([0, 1, 2]))))
    return b.emit(op.astype(condition, "float32"))


def of_two(b, x):
    y = b.emit(op.nn.softmax(x))
    return total(b, step(b, x, 0), step(b, y, 0.5))


def beside_a_float(b, x):
    return total(b, step(b, x, 0), x)


def unbounded(b, x):
    return total(b, b.emit(op.round(x)), step(b, x, 0))


def always_one(b, x):
    return total(b, step(b, x, 0), step(b, x, 0, op.less_equal))


@pytest.mark.parametrize("body", [per_channel, of_two, beside_a_float, unbounded, always_one])
def test_what_is_none(body, module_of):
    assert not ask(module_of, lambda expr, graph: list(pieces_of(expr, graph)), body)


def encoding_of(levels):
    return Pieces(None, f32(range(len(levels) - 1)), f32(levels)).encoding()


@given(
    steps=st.lists(st.integers(1, 255), min_size=1, max_size=8),
    lowest=st.integers(-300, 300),
    scale=st.floats(2.0**-20, 2.0**20, width=32),
)
def test_whole_multiples_of_any_scale(steps, lowest, scale):
    levels = f32(lowest + np.cumsum([0, *steps])) * f32(scale)
    encoding = encoding_of(levels)
    made = encoding.dequantize(np.array(encoding.codes, np.uint8))
    assert np.all(np.abs(made - levels) <= 2.0**-21 * np.abs(levels).max())
    assert encoding.bits <= len(steps)


@pytest.mark.parametrize(
    "levels, message",
    [
        ([0, 1, 0.5], "levels 0, 1, 0.5 don't rise"),
        ([0, 0.3, 0.3 * np.pi, np.e, 4], "aren't whole multiples of one number"),
        (np.cumsum([0, 101, 2, 83, 4, 79, 6, 97, 8, 89, 3]), "9 planes"),
    ],
)
def test_levels_that_are_refused(levels, message):
    with pytest.raises(UnsupportedError, match=message):
        encoding_of(levels)
