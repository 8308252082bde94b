"""Levels found in arithmetic: what they are, and which encoding has them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op import quantize
from tvm_bitenc.transform.analysis.grid import bounds_of, fit, grid_of, integers_of, levels_of
from tvm_bitenc.transform.visit import visit_calls

f32, op = np.float32, relax.op
scales = st.floats(2.0**-20, 2.0**20, width=32)


@given(count=st.integers(2, 256), low=st.integers(-300, 300), scale=scales, falling=st.booleans())
def test_a_grid_is_found_again(count, low, scale, falling):
    levels = (np.arange(low, low + count).astype(f32) * f32(scale)).reshape(-1, 1)
    encoding = fit(levels[::-1] if falling else levels)
    codes = np.arange(count, dtype=np.uint8)
    assert encoding.bits == (count - 1).bit_length() and encoding.max_code == count - 1
    assert np.array_equal(encoding.quantize(levels[:, 0]), codes)
    error = np.abs(encoding.dequantize(codes) - levels[:, 0])
    assert np.all(error <= 2.0**-22 * np.abs(levels).max())


@given(scales=st.lists(scales, min_size=2, max_size=5), top=st.integers(1, 100))
def test_a_grid_per_channel(scales, top):
    levels = np.arange(-top, top + 1).astype(f32)[:, None] * f32(scales)
    encoding = fit(levels)
    assert np.allclose(encoding.scale, scales, rtol=1e-6)
    assert np.array_equal(encoding.zero_point, [top] * len(scales))


@pytest.mark.parametrize(
    "levels",
    [[0, 1, 4], [0, 0, 0], [1], [0, np.inf], [0, np.nan], [0.3, 1.3], np.arange(257)],
    ids=str,
)
def test_what_is_no_grid(levels):
    assert fit(f32(levels).reshape(-1, 1)) is None


def ask(module_of, question, body, shape=(2, 3)):
    """Answer a question about the first argument of a sigmoid."""
    answers = []

    def note(call, graph):
        if call.op.name == "relax.sigmoid":
            answers.append(question(call.args[0], graph))

    visit_calls(module_of([shape], lambda b, x: b.emit(op.sigmoid(body(b, x)))), note)
    return answers[0]


def chain(b, x, *steps):
    for function, *constants in steps:
        values = (v if function is op.clip else relax.const(f32(v)) for v in constants)
        x = b.emit(function(x, *values))
    return x


INTEGERS = {
    "round and clip": ([(op.round,), (op.clip, -2, 2)], [-2, -1, 0, 1, 2]),
    "clip and round": ([(op.clip, -1.2, 1.7), (op.round,)], [-1, 0, 1, 2]),
    "clip and floor": ([(op.clip, -0.5, 1.5), (op.floor,)], [-1, 0, 1]),
    "sign": ([(op.sign,)], [-1, 0, 1]),
    "relu, minimum": ([(op.round,), (op.nn.relu,), (op.minimum, 2)], [0, 1, 2]),
    "shifted": ([(op.round,), (op.clip, 0, 2), (op.subtract, 5)], [-5, -4, -3]),
    "tanh": ([(op.tanh,), (op.multiply, 2.4), (op.round,)], [-2, -1, 0, 1, 2]),
    "unbounded": ([(op.round,), (op.maximum, 0)], None),
    "not whole": ([(op.clip, 0, 3)], None),
    "clipped between integers": ([(op.round,), (op.clip, 0, 2.5)], None),
    "too many": ([(op.round,), (op.clip, 0, 256)], None),
}


@pytest.mark.parametrize("name", INTEGERS)
def test_integers(name, module_of):
    steps, expected = INTEGERS[name]
    found = ask(module_of, integers_of, lambda b, x: chain(b, x, *steps))
    assert found is None if expected is None else found.tolist() == expected


@settings(max_examples=25, deadline=None)
@given(
    factor=st.floats(-4, 4).filter(bool), term=st.floats(-4, 4), low=st.integers(-9, 0), x=st.data()
)
def test_bounds_hold(factor, term, low, x, module_of):
    steps = [(op.clip, low, 9), (op.multiply, factor), (op.add, term), (op.maximum, -3)]
    first, last = ask(module_of, bounds_of, lambda b, v: chain(b, v, *steps))
    value = f32(x.draw(st.floats(-20, 20, width=32)))
    value = np.maximum(np.clip(value, f32(low), f32(9)) * f32(factor) + f32(term), f32(-3))
    assert first <= value <= last


def test_levels_behind_a_quantizer(module_of):
    encoding = Encoding(3, 0.3, 2.0, max_code=5)
    found = ask(
        module_of, levels_of, lambda b, x: chain(b, b.emit(quantize(x, encoding)), (op.negative,))
    )
    assert np.array_equal(found.reshape(-1), -encoding.dequantize(np.arange(6, dtype=np.uint8)))


def test_a_constant_per_channel_makes_a_grid_per_channel(module_of):
    scales = f32([0.5, 0.25, 2.0])
    steps = [(op.round,), (op.clip, 0, 3), (op.multiply, scales)]
    encoding, axis = ask(module_of, grid_of, lambda b, x: chain(b, x, *steps))
    assert axis == 1 and np.array_equal(encoding.scale, scales) and encoding.bits == 2
    turned = ask(module_of, grid_of, lambda b, x: b.emit(op.permute_dims(chain(b, x, *steps))))
    assert turned[1] == 0 and np.array_equal(turned[0].scale, scales)


def test_a_constant_per_element_makes_none(module_of):
    steps = [(op.round,), (op.clip, 0, 3), (op.multiply, np.ones((2, 3)))]
    assert ask(module_of, grid_of, lambda b, x: chain(b, x, *steps)) is None


def test_signs_of_weights_take_one_bit(module_of):
    def body(values):
        return lambda b, x: b.emit(op.add(x, b.emit(op.sigmoid(b.emit(op.sign(values))))))

    for values, count in (f32([[1, -2, 3]]), 2), (f32([[1, 0, -3]]), 3):
        answers = []
        mod = module_of([(2, 3)], body(relax.const(values)))
        visit_calls(
            mod,
            lambda call, graph, answers=answers: (
                answers.append(integers_of(call.args[0], graph))
                if call.op.name == "relax.sigmoid"
                else None
            ),
        )
        assert len(answers[0]) == count
