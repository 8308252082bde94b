"""Transposed convolutions as ordinary ones, woven together: torch's numbers."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_bitenc import op as bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op import quantize
from tvm_bitenc.strategy import STRATEGIES
from tvm_bitenc.transform.as_conv2d import AsConv2d
from tvm_bitenc.transform.conv_transpose import phases

op, rng = relax.op, np.random.default_rng(0)
ACT, WEIGHT = Encoding.symmetric(3, 2.0), Encoding.symmetric(2, 2.0)


def operands(builder, x, weight, encoding=WEIGHT, axis=-1):
    values = relax.const(np.asarray(weight, np.float32))
    return builder.emit(quantize(x, ACT)), builder.emit(quantize(values, encoding, axis, "layer"))


def random_values(encoding, *shape):
    return encoding.dequantize(rng.integers(0, 2**encoding.bits, shape, dtype=np.uint8))


def transposed_layer(x, weight, window):
    """A module of one quantized transposed convolution, 1-d or 2-d."""
    op_of = {3: op.nn.conv1d_transpose, 4: op.nn.conv2d_transpose}[x.ndim]

    def body(builder, data):
        options = {{"stride": "strides"}.get(k, k): v for k, v in window.items()}
        return builder.emit(op_of(*operands(builder, data, weight), **options))

    return body


def torchs_own(x, weight, window):
    function = {3: functional.conv_transpose1d, 4: functional.conv_transpose2d}[x.ndim]
    return function(torch.from_numpy(x), torch.from_numpy(weight), None, **window).numpy()


def test_golden_conv2d_transpose(assert_same_ir):
    """Kernel 3, stride 2, padding 1: even rows take the middle tap, odd rows the outer two."""
    weight = relax.const(random_values(WEIGHT, 4, 2, 3, 3))

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 4, 4, 4), "float32")):
            with R.dataflow():
                a = bitenc.quantize(x, ACT)
                w = bitenc.quantize(weight, WEIGHT, layer="layer")
                y = R.nn.conv2d_transpose(
                    a, w, strides=(2, 2), padding=(1, 1), output_padding=(1, 1)
                )
                R.output(y)
            return y

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((1, 4, 4, 4), "float32")):
            with R.dataflow():
                a = bitenc.quantize(x, ACT)
                w = bitenc.quantize(weight, WEIGHT, layer="layer")
                w1 = R.permute_dims(R.flip(R.flip(w, 2), 3), (1, 0, 2, 3))
                w_ee = R.strided_slice(w1, [2, 3], (1, 1), (3, 3), (2, 2), assume_inbound=False)
                y_ee = R.nn.conv2d(a, w_ee, padding=(0, 0, 0, 0))
                w_eo = R.strided_slice(w1, [2, 3], (1, 0), (3, 3), (2, 2), assume_inbound=False)
                y_eo = R.nn.conv2d(a, w_eo, padding=(0, 0, 0, 1))
                w_oe = R.strided_slice(w1, [2, 3], (0, 1), (3, 3), (2, 2), assume_inbound=False)
                y_oe = R.nn.conv2d(a, w_oe, padding=(0, 0, 1, 0))
                w_oo = R.strided_slice(w1, [2, 3], (0, 0), (3, 3), (2, 2), assume_inbound=False)
                y_oo = R.nn.conv2d(a, w_oo, padding=(0, 0, 1, 1))
                y = bitenc.interleave((y_ee, y_eo, y_oe, y_oo), (2, 2), (8, 8))
                R.output(y)
            return y

    assert_same_ir(AsConv2d()(Before), After)


WINDOWS = {
    "kernel is stride": (2, dict(stride=2)),
    "phases of different sizes": (3, dict(stride=2, padding=1, output_padding=1)),
    "no output padding": (3, dict(stride=2, padding=1)),
    "stride 1 is one convolution": (3, dict(padding=1)),
    "phases without taps": (2, dict(stride=3, output_padding=2)),
    "dilation and stride with a common factor": (3, dict(stride=2, dilation=2, padding=1)),
    "dilation and stride without": (3, dict(stride=3, dilation=2)),
    "cropped input": (2, dict(stride=2, padding=1)),
    "groups": (3, dict(stride=2, groups=2)),
    "each axis its own": ((4, 3), dict(stride=(2, 3), padding=(1, 2), dilation=(1, 2))),
}


@pytest.mark.sweep(1)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_transposed_convolutions_are_torchs_own(strategy, module_of, outputs_of, same):
    x, layers = random_values(ACT, 1, 4, 4, 3), []
    for kernel, window in WINDOWS.values():
        size = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        layers.append((random_values(WEIGHT, 4, 3, *size), window))

    def body(builder, data):
        return [transposed_layer(x, *layer)(builder, data) for layer in layers]

    outputs = outputs_of(module_of([x.shape], body), [x], strategy=strategy, threads=1)
    for name, layer, y in zip(WINDOWS, layers, outputs, strict=True):
        assert same(y, torchs_own(x, *layer)), name


def test_one_dimension(module_of, outputs_of, same):
    x, weight = random_values(ACT, 2, 4, 6), random_values(WEIGHT, 4, 3, 5)
    window = dict(stride=3, padding=2, output_padding=1, groups=2)
    (y,) = outputs_of(module_of([x.shape], transposed_layer(x, weight, window)), [x])
    assert same(y, torchs_own(x, weight, window))


@pytest.mark.parametrize("groups", [1, 2])
def test_a_scale_per_output_channel_of_a_group(groups, module_of, outputs_of, same):
    per_channel = Encoding(2, [0.5, 2.0, 8.0], [0.0, 1.5, 2.0])
    codes = rng.integers(0, 4, (4, 3, 2, 2), dtype=np.uint8)
    weight, x = per_channel.dequantize(codes, 1), random_values(ACT, 1, 4, 3, 3)

    def body(builder, data):
        a, w = operands(builder, data, weight, per_channel, axis=1)
        return builder.emit(op.nn.conv2d_transpose(a, w, strides=(2, 2), groups=groups))

    (y,) = outputs_of(module_of([x.shape], body), [x])
    assert same(y, torchs_own(x, weight, dict(stride=2, groups=groups)))


geometry = st.tuples(
    *(st.integers(1, n) for n in (6, 4, 4, 3)), st.integers(0, 5), st.integers(0, 3)
)


@settings(max_examples=300, deadline=None)
@given(geometry)
def test_phases_take_every_tap_of_every_output_once(numbers):
    """Along one axis, in numpy: what scattering inputs over outputs gives."""
    size, kernel, stride, dilation, padding, extra = numbers
    out_size = (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1 + extra % stride
    if out_size < 1:
        return
    x, w = rng.integers(-9, 10, size), rng.integers(-9, 10, kernel)
    full = np.zeros(out_size + 2 * padding + stride, int)
    for i in range(size):
        for t in range(kernel):
            full[stride * i + dilation * t] += x[i] * w[t]
    woven = np.zeros((-(-out_size // stride), stride), int)
    for r, phase in enumerate(phases(size, out_size, kernel, stride, padding, dilation)):
        if phase is None:
            continue
        taps = w[::-1][phase.taps]
        inside = x[max(-phase.before, 0) : min(phase.after, 0) or None]
        assert inside.size
        padded = np.pad(inside, [max(n, 0) for n in (phase.before, phase.after)])
        for q in range(len(woven)):
            window = padded[q : q + (len(taps) - 1) * phase.dilation + 1 : phase.dilation]
            woven[q, r] = window @ taps
    expected = full[padding : padding + out_size]
    assert np.array_equal(woven.reshape(-1)[:out_size], expected)


windows = st.fixed_dictionaries(
    dict(
        stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
        padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
        dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
        groups=st.sampled_from([1, 2]),
    )
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(windows, st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_any_transposed_convolution(module_of, outputs_of, same, window, kernel):
    x, weight = random_values(ACT, 1, 4, 4, 5), random_values(WEIGHT, 4, 3, *kernel)
    try:
        expected = torchs_own(x, weight, window)
    except RuntimeError:
        return  # Torch has no output of this size,
    if expected.size == 0:
        return  # or an empty one.
    (y,) = outputs_of(module_of([x.shape], transposed_layer(x, weight, window)), [x])
    assert same(y, expected)
