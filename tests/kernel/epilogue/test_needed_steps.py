"""Limits that a code's own range implies go, others stay."""

from dataclasses import replace

import numpy as np
import pytest

from tvm_bitenc.kernel.epilogue.needed_steps import needed_steps
from tvm_bitenc.layer import FloatStep
from tvm_bitenc.transform.fold import find_thresholds

OUT_CHANNELS = 6
SLOPE = np.array([0.01, -0.02, 0.013, 0, 0.5, -0.4], np.float32)


def full(*values):
    return tuple(np.full(OUT_CHANNELS, value, np.float32) for value in values)


@pytest.fixture
def layer_of(conv_layer):
    """A layer whose codes are acc * SLOPE, limited, times a factor, rounded."""
    codes = np.random.default_rng(0).integers(0, 4, (OUT_CHANNELS, 5, 3, 3), dtype=np.uint8)

    def build(low, high, factor, slope=1.0):
        def codes_of(acc):
            x = acc.astype(np.float32) * SLOPE
            x = np.where(x > 0, x, x * np.float32(slope))
            return np.clip(np.rint(np.clip(x, low, high) * np.float32(factor)), 0, 15)

        layer = conv_layer(codes, 0)
        thresholds, direction = find_thresholds(codes_of, *layer.accumulator_range, 15)
        steps = [
            FloatStep("astype"),
            FloatStep("multiply", (SLOPE,)),
            FloatStep("prelu", full(slope)),
            FloatStep("clip", full(low, high)),
            FloatStep("multiply", full(factor)),
            FloatStep("round"),
        ]
        return replace(layer, thresholds=thresholds, direction=direction, code_steps=tuple(steps))

    return build


def names(steps):
    return [step.name for step in steps]


@pytest.mark.parametrize("low, high, stays", [(0, 1, False), (0, 0.8, True), (0.2, 1, True)])
def test_a_limit_stays_if_codes_depend_on_it(low, high, stays, layer_of):
    assert ("clip" in names(needed_steps(layer_of(low, high, 15)))) == stays


def test_what_turns_is_left_alone(layer_of):
    layer = layer_of(0, 1, 15)
    prelu = FloatStep("prelu", full(-1.0))
    turning = replace(layer, code_steps=(layer.code_steps[0], prelu, *layer.code_steps[3:]))
    assert needed_steps(turning) == turning.code_steps
