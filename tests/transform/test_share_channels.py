"""Output channels with the same weights share sums; whatever they do with them is their own."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

import tvm_bitenc as be
from tests.kernel.cases import codes_of, of_branches, reordered, steps_of, thresholded
from tests.models import randomised
from tvm_bitenc.branches import BranchGeometry
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.explain.observer import explain
from tvm_bitenc.host import host_features
from tvm_bitenc.layer import ConvLayer
from tvm_bitenc.nn import QConv2d
from tvm_bitenc.op.packed import conv_layer_of, packed_conv2d_op
from tvm_bitenc.op.registration import is_call_to
from tvm_bitenc.records.workload import parse_workload, workload_of
from tvm_bitenc.strategy import STRATEGIES
from tvm_bitenc.target import load_target
from tvm_bitenc.transform import default_pipeline, no_lowering
from tvm_bitenc.transform.share_channels import ShareChannels, by_row
from tvm_bitenc.transform.visit import visit_calls

X86 = ["native", *(["x86-64-v3"] if "avx2" in host_features() else [])]
NATIVE = load_target("native")
rng = np.random.default_rng(0)
TILE = rng.integers(0, 2, (8, 5, 3, 3), np.uint8)
OFFSET = np.arange(8, dtype=np.int32)
WHOLE, WHOLE_OFFSET = relax.const(np.tile(TILE, (3, 1, 1, 1))), relax.const(np.tile(OFFSET, 3))
ONCE, ONCE_OFFSET = relax.const(TILE), relax.const(OFFSET)
LIMITS = relax.const(rng.integers(-9, 9, (1, 24)), "int32")
UP = relax.const(np.ones(24), "int32")
PLAIN = dict(act_coefficients=[1], weight_coefficients=[1], act_offset=0, layer="conv")
PLAIN |= dict(strategy="", steps=[])


def test_golden(assert_same_ir):
    @I.ir_module
    class Before:
        @R.function
        def main(planes: R.Tensor((1, 4, 4, 1, 1), "uint64")):
            with R.dataflow():
                y = T.Call(
                    "bitenc.packed_conv2d", [planes, WHOLE, WHOLE_OFFSET, LIMITS, UP], attrs=PLAIN
                )
                R.output(y)
            return y

    @I.ir_module
    class After:
        @R.function
        def main(planes: R.Tensor((1, 4, 4, 1, 1), "uint64")):
            with R.dataflow():
                y = T.Call(
                    "bitenc.packed_conv2d",
                    [planes, ONCE, ONCE_OFFSET, LIMITS, UP],
                    attrs=dict(PLAIN, copies=3),
                )
                R.output(y)
            return y

    assert_same_ir(ShareChannels(NATIVE)(Before), After)
    assert_same_ir(ShareChannels(NATIVE)(After), After)


ROWS = [5, ~5, 0, 1, 2, ~3, 4, 6, 7, ~0, ~1, 5, 5, 2]
# The first of several is kept as it is.
FIRST = [5, 0, 1, 2, ~3, 4, 6, 7]
NUMBERS = [0, ~0, 1, 2, 3, 4, 5, 6, 7, ~1, ~2, 0, 0, 3]


def signed_rows(rows):
    """Some rows of `TILE` and their offsets: complements of codes have the negated integers."""
    codes = np.stack([TILE[row] if row >= 0 else 1 - TILE[~row] for row in rows])
    offset = [OFFSET[row] if row >= 0 else -OFFSET[~row] for row in rows]
    return relax.const(codes), relax.const(np.array(offset, np.int32))


def test_golden_in_any_order(assert_same_ir, always_shared):
    weights, offset = signed_rows(ROWS)
    kept, kept_offset = signed_rows(FIRST)

    @I.ir_module
    class Before:
        @R.function
        def main(planes: R.Tensor((1, 4, 4, 1, 1), "uint64")):
            with R.dataflow():
                y = T.Call("bitenc.packed_conv2d", [planes, weights, offset], attrs=PLAIN)
                R.output(y)
            return y

    @I.ir_module
    class After:
        @R.function
        def main(planes: R.Tensor((1, 4, 4, 1, 1), "uint64")):
            with R.dataflow():
                y = T.Call(
                    "bitenc.packed_conv2d",
                    [planes, kept, kept_offset],
                    attrs=dict(PLAIN, channel_rows=NUMBERS),
                )
                R.output(y)
            return y

    assert_same_ir(ShareChannels(NATIVE)(Before), After)
    assert_same_ir(ShareChannels(NATIVE)(After), After)
    assert_same_ir(ShareChannels(NATIVE, any_order=False)(Before), Before)
    (before,), (after,) = convolutions(Before), convolutions(After)
    before, after = conv_layer_of(before), conv_layer_of(after).expanded
    np.testing.assert_array_equal(after.weight_codes, before.weight_codes)
    np.testing.assert_array_equal(after.weight_offset, before.weight_offset)


def test_weights_of_other_zero_points_are_others(assert_same_ir):
    offset = relax.const(np.arange(24, dtype=np.int32))

    @I.ir_module
    class Module:
        @R.function
        def main(planes: R.Tensor((1, 4, 4, 1, 1), "uint64")):
            with R.dataflow():
                y = T.Call("bitenc.packed_conv2d", [planes, WHOLE, offset], attrs=PLAIN)
                R.output(y)
            return y

    assert_same_ir(ShareChannels(NATIVE)(Module), Module)


def convolutions(mod):
    found = []

    def note(call, _graph):
        if is_call_to(call, packed_conv2d_op):
            found.append(call)

    visit_calls(mod, note)
    return found


W, A = Encoding.symmetric(2, 2.0), Encoding.unsigned(2, 2.0)
EIGHT = tuple(range(8))
# Which channel's weights each channel has, and how many share them.
REPEATED = {
    "in order": (EIGHT * 3, 3),
    "all the same": ((0,) * 24, 3),
    "four and four": ((0, 1, 2, 3) * 6, 3),
    "twelve, of which eights are none": ((*EIGHT, 8, 9, 10, 11) * 2, 1),
    "but for the last": ((*EIGHT, *EIGHT, *EIGHT[:-1], 8), 1),
    "side by side": (tuple(i // 3 for i in range(24)), 1),
    "a part left over": ((*range(16), *EIGHT), 1),
    "in groups": (EIGHT * 3, 1),
}


@pytest.mark.parametrize("name", REPEATED)
def test_what_repeats(name, random_layer, module_of, outputs_of, same):
    """No more than needed is kept, and numbers stay what they were."""
    order, copies = REPEATED[name]
    window = dict(groups=2) if name == "in groups" else {}
    layer = random_layer(0, W, A, channels=8, out_channels=24, **window)
    layer = dataclasses.replace(layer, weight_codes=layer.weight_codes[list(order)])
    mod = module_of([layer.act_codes.shape], layer.emit)
    shared = default_pipeline(load_target("native")).until("bitenc.Strategy").run(mod)
    (call,) = convolutions(shared)
    found = conv_layer_of(call)
    assert (found.copies, found.out_channels) == (copies, 24)
    assert same(found.expanded.weight_codes, layer.weight_codes)
    assert same(outputs_of(mod, [layer.input])[0], layer.reference())


def test_a_record_knows_of_copies():
    @I.ir_module
    class Module:
        @R.function
        def main(planes: R.Tensor((1, 4, 4, 1, 1), "uint64")):
            with R.dataflow():
                y = T.Call(
                    "bitenc.packed_conv2d", [planes, ONCE, ONCE_OFFSET], attrs=dict(PLAIN, copies=3)
                )
                R.output(y)
            return y

    text = workload_of(convolutions(Module)[0], load_target("native"))
    assert " copies=3 " in text
    found = parse_workload(text)
    assert (str(found), found.copies, found.out_channels) == (text, 3, 24)
    with pytest.raises(ValueError, match="5 copies don't divide 24 channels"):
        parse_workload(text.replace("copies=3", "copies=5"))


def layer_of(codes, act_bits, weight_coefficients, branches=None):
    """A layer of single taps: its weights by output channel."""
    codes = np.array(codes, np.uint8)[:, :, None, None]
    acts = tuple(2**bit for bit in range(act_bits))
    geometry = BranchGeometry(acts, weight_coefficients, 0, branches=branches)
    return ConvLayer(
        "conv", (1, 4, 4, codes.shape[1]), codes, np.zeros(len(codes), np.int32), geometry
    )


def test_rows_of_the_same_integers_are_the_same():
    """Both planes of a ternary 0 may be the one that is set, and a row of zeros negates itself."""
    codes = [[1, 3], [2, 3], [2, 1], [0, 0], [3, 3], [1, 2], [1, 0]]
    layer = layer_of(codes, 2, (1, 1))
    found = by_row(layer)
    assert found.channel_rows == (0, 0, 1, 2, ~2, 1, ~0)
    assert found.expanded.weight_integers.tolist() == layer.weight_integers.tolist()
    low, high = found.accumulator_range
    assert [low.tolist(), high.tolist()] == [x.tolist() for x in layer.accumulator_range]


def test_a_branch_matrix_tells_planes_apart():
    """Every plane of the activations has weights of its own, all of which have to be negated."""
    codes = [[1, 3], [2, 3], [2, 0], [1, 3]]
    layer = layer_of(codes, 2, (1, 2), ((1, 0), (0, 1)))
    assert by_row(layer).channel_rows == (0, 1, ~0, 0)


def test_sharing_has_to_pay(random_layer, layers_module):
    """A window of single taps takes less than reading its sum by number, lane by lane."""
    found = {}
    for kernel in (1, 3):
        act = Encoding.symmetric(1, 2.0)
        layer = random_layer(0, act, act, channels=64, out_channels=16, kernel=kernel, size=(9, 9))
        layer = reordered(layer, 64, 0)
        passes = default_pipeline(load_target("x86-64-v3")).until("bitenc.Strategy")
        (call,) = convolutions(passes.run(layers_module([layer])))
        found[kernel] = len(conv_layer_of(call).weight_codes)
    assert found == {1: 64, 3: 16}


@pytest.mark.parametrize("threads, rows", [(1, 64), (4, 256)])
def test_threads_are_kept_busy(threads, rows, random_layer, layers_module):
    """Of pixels in one row each thread takes some channels: all read any sum where they share."""
    two = Encoding.symmetric(2, 2.0)
    layer = random_layer(0, two, two, channels=512, out_channels=64, kernel=1, size=(8, 8))
    passes = default_pipeline(load_target("znver4", threads)).until("bitenc.Strategy")
    (call,) = convolutions(passes.run(layers_module([reordered(layer, 256, 0)])))
    assert len(conv_layer_of(call).weight_codes) == rows


def test_what_is_shared_is_counted(random_layer, layers_module):
    """Weights and operations of each row once, and two bytes for every channel's number."""
    w, a = Encoding.symmetric(1, 2.0), Encoding.unsigned(2, 2.0)
    layer = random_layer(0, w, a, channels=64, out_channels=16, size=(9, 9), padding=1)
    (row,) = explain(layers_module([reordered(layer, 64, 0)]), "znver4").layers
    assert " rows=16" in row.shape
    assert row.stored_bytes == 16 * 9 * 8 + 2 * 64
    assert row.bits_per_weight == pytest.approx(8 * row.stored_bytes / (64 * 64 * 9))
    assert row.bit_operations == 81 * 16 * 64 * 9 * 2


encodings = st.sampled_from(
    [
        *(Encoding.symmetric(bits, 2.0) for bits in (1, 2, 3)),
        *(Encoding.signed(2, 2.0), Encoding.ternary(2.0), Encoding.unsigned(2, 2.0)),
    ]
)
windows = st.fixed_dictionaries(
    {
        "channels": st.sampled_from([3, 16, 64, 66, 130]),
        "out_channels": st.integers(1, 20),
        "batch": st.integers(1, 2),
        "kernel": st.sampled_from([1, 3, (1, 2)]),
        "stride": st.integers(1, 2),
        "padding": st.tuples(*[st.integers(0, 2)] * 4),
        "groups": st.sampled_from([1, 1, 1, 2]),
    }
)


def any_layer(data, random_layer, seed):
    """A layer whose rows of weights are repeated, negated and shuffled."""
    act = Encoding.unsigned(data.draw(st.integers(1, 4)), 2.0)
    window = data.draw(windows)
    if window["groups"] == 2:
        window["channels"] += window["channels"] % 2
        window["out_channels"] *= 2
    layer = random_layer(seed, data.draw(encodings), act, **window)
    channels = len(layer.weight_codes) + 2 * data.draw(st.integers(1, 40))
    return reordered(layer, channels, seed)


def check_any_layers(data, random_layer, module_of, outputs_of, assert_exact, same):
    """Floats, integers and codes of three layers equal those of the reference."""
    strategy = data.draw(st.sampled_from(["auto", *STRATEGIES]))
    target = data.draw(st.sampled_from(X86))
    layers = [any_layer(data, random_layer, seed) for seed in range(3)]
    assert_exact(layers[:1], strategy=strategy, target=target)
    (y,) = outputs_of(
        of_branches(layers[1:2], module_of),
        [layers[1].act_codes],
        strategy=strategy,
        target=target,
    )
    assert same(y, layers[1].accumulators())
    case = (
        layers[2],
        *steps_of(layers[2], data.draw(st.integers(1, 8)), data.draw(st.booleans()), 0),
    )
    (y,) = outputs_of(
        thresholded([case], module_of), [layers[2].act_codes], strategy=strategy, target=target
    )
    assert same(y, codes_of(*case))


few = settings(
    max_examples=1,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # Compiling takes too long to shrink.
)


@few
@given(data=st.data())
def test_any_layer(data, random_layer, module_of, outputs_of, assert_exact, same, always_shared):
    check_any_layers(data, random_layer, module_of, outputs_of, assert_exact, same)


@pytest.mark.slow
@settings(few, max_examples=15)
@given(data=st.data())
def test_many_layers(data, random_layer, module_of, outputs_of, assert_exact, same, always_shared):
    check_any_layers(data, random_layer, module_of, outputs_of, assert_exact, same)


def rows_repeated(layer, distinct):
    """The layer with so many rows of its weights in any order, some negated."""
    weight = layer.weight.data
    signs = 1 - 2 * torch.randint(0, 2, (len(weight), 1, 1, 1))
    layer.weight.data = signs * weight[torch.randperm(len(weight)) % distinct]
    return layer


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("bits", [(4, 4), (1, 2)])
def test_networks(bits, threads, same, always_shared):
    """Layers that read codes of an image, bytes or planes, and end in bytes, planes or floats."""
    torch.manual_seed(0)
    sizes = ((3, 32, 9, 8), (32, 64, 21, bits[1]), (64, 96, 70, bits[1]), (96, 40, 11, bits[1]))
    layers = [
        rows_repeated(QConv2d(before, after, 3, 1, 1, weight_bits=bits[0], act_bits=act), distinct)
        for before, after, distinct, act in sizes
    ]
    norms = [torch.nn.BatchNorm2d(after) for _, after, *_ in sizes[:-1]]
    parts = [part for pair in zip(layers, norms) for part in (*pair, torch.nn.ReLU())]
    model = torch.nn.Sequential(*parts, layers[-1])
    x = torch.rand(3, 3, 12, 12)
    mod = be.from_torch(randomised(model), (x,))
    library = be.build(mod, threads=threads)
    assert [row.shape.split()[-1] for row in library.report().layers] == [
        f"rows={distinct}" for _, _, distinct, _ in sizes
    ]
    assert same(library(x), be.build(mod, pipeline=no_lowering)(x))
