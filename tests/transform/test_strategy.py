"""Every convolution is told how to compute its sum."""

from dataclasses import replace

import numpy as np
import pytest
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from benchmarks.workloads import codeword_codes
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.layer import BranchGeometry, ConvLayer
from tvm_bitenc.op import branch_conv2d, packed_conv2d
from tvm_bitenc.op.packed import conv_layer_of, packed_conv2d_op
from tvm_bitenc.op.registration import is_call_to, with_attributes
from tvm_bitenc.schedule import strategy_costs
from tvm_bitenc.strategy import STRATEGIES
from tvm_bitenc.target import DEFAULT_RULES, Target, load_target, native_target
from tvm_bitenc.transform.pipeline import default_pipeline
from tvm_bitenc.transform.strategy import Strategy
from tvm_bitenc.transform.visit import visit_calls

TARGET = Target("here", native_target().tvm_target, ("generic",))


def packed(builder, planes, bits, channels, strategy=""):
    codes = relax.Var("codes", relax.TensorType((1, channels, 4, 4), "uint8"))
    weight = np.random.default_rng(0).integers(0, 2**bits, (4, channels, 3, 3), dtype=np.uint8)
    encoding = Encoding.symmetric(bits, 2.0)
    call = branch_conv2d(codes, encoding, weight, encoding)
    call = packed_conv2d(planes, relax.BlockBuilder().normalize(call))
    decision = dict(strategy=strategy, tile=[], origin="default rule") if strategy else {}
    return builder.emit(with_attributes(call, **decision))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_golden(strategy, assert_same_ir):
    w = relax.const(np.random.default_rng(0).integers(0, 4, (4, 9, 3, 3)), "uint8")
    o = relax.const(np.zeros(4), "int32")
    conv = dict(act_coefficients=[1, 2], weight_coefficients=[1, 2], act_offset=0, layer="conv")
    conv |= dict(strides=[1, 1], padding=[0, 0, 0, 0], dilation=[1, 1], groups=1, steps=[])
    asked = dict(conv, strategy="")
    decided = dict(conv, strategy=strategy, tile=[], origin="default rule")

    @I.ir_module
    class Before:
        @R.function
        def main(planes: R.Tensor((1, 4, 4, 2, 1), "uint64")):
            with R.dataflow():
                out = T.Call("bitenc.packed_conv2d", [planes, w, o], attrs=asked)
                R.output(out)
            return out

    @I.ir_module
    class After:
        @R.function
        def main(planes: R.Tensor((1, 4, 4, 2, 1), "uint64")):
            with R.dataflow():
                out = T.Call("bitenc.packed_conv2d", [planes, w, o], attrs=decided)
                R.output(out)
            return out

    assert_same_ir(Strategy(strategy, TARGET)(Before), After)


def test_auto_takes_xnor_for_one_bit_and_many_channels(module_of, assert_same_ir):
    shape = (1, 4, 4, 1, 4)
    before = module_of([shape], lambda b, x: packed(b, x, 1, 256), "uint64")
    after = module_of([shape], lambda b, x: packed(b, x, 1, 256, "xnor"), "uint64")
    assert_same_ir(Strategy("auto", TARGET)(before), after)


@pytest.mark.parametrize("bits, channels", [(8, 256), (1, 2)])
def test_auto_takes_int8_where_bits_are_many_or_channels_few(
    bits, channels, module_of, assert_same_ir
):
    shape = (1, 4, 4, bits, -(-channels // 64))
    before = module_of([shape], lambda b, x: packed(b, x, bits, channels), "uint64")
    after = module_of([shape], lambda b, x: packed(b, x, bits, channels, "int8"), "uint64")
    assert_same_ir(Strategy("auto", TARGET)(before), after)


def test_an_unknown_strategy_lists_the_known_ones():
    with pytest.raises(UnsupportedError, match="'fastest'.*'auto'.*xnor"):
        Strategy("fastest", TARGET)


def strategies_of(mod, strategy, target=TARGET):
    found = {}

    def look(call, _graph):
        if is_call_to(call, packed_conv2d_op):
            layer = conv_layer_of(call)
            found[layer.name] = (layer.strategy, layer)

    visit_calls(default_pipeline(target, strategy).until("bitenc.DirectCodes").run(mod), look)
    return found


def three(random_layer, layers_module):
    shapes = [("a", 1, 128), ("b", 2, 64), ("c", 8, 16)]
    return layers_module(
        [
            random_layer(
                0, Encoding.symmetric(b, 2.0), Encoding.unsigned(b, 2.0), channels=c, name=name
            )
            for name, b, c in shapes
        ]
    )


def test_a_mapping_gives_strategies_by_layer(random_layer, layers_module):
    found = strategies_of(three(random_layer, layers_module), {"b": "lut", "*": "int8"})
    assert {name: s for name, (s, _) in found.items()} == {"a": "int8", "b": "lut", "c": "int8"}


def test_a_layer_that_is_not_there_is_named(random_layer, layers_module):
    with pytest.raises(UnsupportedError, match=r"'missing'.*a, b, c"):
        strategies_of(three(random_layer, layers_module), {"missing": "lut"})


@pytest.mark.parametrize(
    "codewords, target, cause",
    [
        (100, "x86-64-v3", "its 3x3 kernels aren't each one of at most 64"),
        (20, "x86-64-v3", "target 'x86-64-v3' has no kernel for so many codewords"),
        (16, "cortex-m4", "target 'cortex-m4' has no kernel"),
        (16, "x86-64-v3", None),
    ],
)
def test_codebook_by_name(codewords, target, cause, random_layer, layers_module):
    one = Encoding.symmetric(1, 2.0)
    layer = random_layer(0, one, one, channels=64, out_channels=64, name="coded")
    codes = codeword_codes(codewords)(np.random.default_rng(0), layer.weight_codes.shape, 1)
    mod = layers_module([replace(layer, weight_codes=codes)])
    if cause is None:
        ((found, _),) = strategies_of(mod, "codebook", load_target(target)).values()
        assert found == "codebook"
        return
    with pytest.raises(UnsupportedError, match=rf"'codebook' of layer 'coded'.*{cause}.*auto"):
        strategies_of(mod, "codebook", load_target(target))


@pytest.mark.parametrize("rules", [("generic",), DEFAULT_RULES], ids=str)
def test_auto_takes_what_costs_least(rules, random_layer, layers_module):
    target = Target("here", native_target().tvm_target, rules)
    for strategy, layer in strategies_of(
        three(random_layer, layers_module), "auto", target
    ).values():
        costs = strategy_costs(layer, target)
        assert costs[strategy] == min(costs.values())


PIECES = (10, 15, 22, 33, 40), (30, 22, 28, 47)  # PA-Net: 5 steps, and 4 pieces beside 0.
TERNARY = (3, 4, 5), (7, 10)  # 3 steps, and weights +Wp, 0, -Wn.


@pytest.mark.parametrize(
    "target, coefficients, expected",
    [
        ("x86-64-v3", PIECES, "int8"),
        ("znver5", PIECES, "int8"),
        ("cortex-a76", PIECES, "int8"),
        ("cortex-a53", PIECES, "int8"),
        ("znver5", TERNARY, "lut"),
        ("cortex-a76", TERNARY, "int8"),
        ("cortex-a53", TERNARY, "xnor"),
        ("cortex-a72", TERNARY, "xnor"),
    ],
    ids=str,
)
def test_planes_of_levels_where_they_cost_less_than_bytes(target, coefficients, expected):
    """Many branches cost more than a product of bytes, which `auto` takes then; few don't."""
    acts, weights = coefficients
    codes = np.random.default_rng(0).integers(0, 2 ** len(weights), (64, 64, 3, 3), np.uint8)
    geometry = BranchGeometry(acts, weights, sum(acts), padding=(1, 1, 1, 1))
    layer = ConvLayer("conv", (1, 28, 28, 64), codes, np.full(64, 9, np.int32), geometry)
    costs = strategy_costs(layer, load_target(target))
    assert min(costs, key=costs.__getitem__) == expected
