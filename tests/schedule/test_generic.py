"""Rules for any CPU: each kernel equals its plain definition; rules are found in order."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import tvm
from tvm import relax

import tvm_bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import TargetError
from tvm_bitenc.op import pack
from tvm_bitenc.schedule import RuleSet, find_kernel
from tvm_bitenc.strategy import STRATEGIES
from tvm_bitenc.target import Target, native_target
from tvm_bitenc.transform import default_pipeline

OUT_CHANNELS = (1, 2, 7, 8, 12, 65)
SIZES = ((1, 1), (3, 7), (2, 12))
PAIRS = list(itertools.product(OUT_CHANNELS, SIZES))
GENERIC = Target("here", native_target().tvm_target, ("generic",))


@pytest.mark.sweep(1)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_width_and_number_of_lanes(strategy, random_layer, assert_exact):
    """Lanes come from the output channels, pixels at once from the width and the bits."""
    layers = [
        random_layer(
            i,
            Encoding.symmetric(bits, 2.0),
            Encoding.symmetric(bits, 2.0),
            channels=5,
            out_channels=out,
            size=size,
            kernel=1,
        )
        for bits, pairs in ((1, PAIRS[::2]), (3, PAIRS[1::2]))
        for i, (out, size) in enumerate(pairs)
    ]
    assert_exact(layers, strategy=strategy, threads=1, target=GENERIC)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_portable_code(strategy, random_layer, assert_exact):
    """Without any vector extension the same rules give the same numbers."""
    layer = random_layer(0, Encoding.symmetric(2, 2.0), Encoding.unsigned(3, 2.0), padding=1)
    if native_target().architecture != "x86_64":
        pytest.skip("x86-64-v1 runs on x86 alone: run the tests on such a machine as well")
    plain = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64"})
    assert_exact([layer], strategy=strategy, target=Target("plain", plain, ("generic",)))


def test_large_layers_run_rows_in_parallel(random_layer, layers_module):
    layer = random_layer(
        0, Encoding.symmetric(2), Encoding.symmetric(2), channels=64, out_channels=64, size=(34, 34)
    )

    def parallel(threads):
        target = replace(GENERIC, threads=threads)
        mod = default_pipeline(target, "xnor").run(layers_module([layer]))
        (name,) = [v for v in mod.get_global_vars() if "packed_conv2d" in v.name_hint]
        return "T.parallel" in mod[name].script()

    assert parallel(None) and parallel(2) and not parallel(1)


def packed_call():
    codes = relax.Var("codes", relax.TensorType((1, 2, 2, 3), "uint8"))
    return relax.BlockBuilder().normalize(pack(codes, 2))


def test_rules_are_tried_in_the_order_of_the_target():
    asked = []

    def decline(call, target):
        asked.append(call.op.name)

    mine = RuleSet("mine", (decline, decline))
    target = Target("board", native_target().tvm_target, (mine, "generic"))
    kernel = find_kernel(packed_call(), target)
    assert asked == ["bitenc.pack"] * 2 and len(kernel.constants) == 0


def test_an_unknown_rule_set_is_named():
    target = Target("board", native_target().tvm_target, ("turbo",))
    with pytest.raises(TargetError, match=r"'board'.*'turbo'.*generic.*RuleSet"):
        find_kernel(packed_call(), target)


def test_no_rule_applies():
    target = Target("board", native_target().tvm_target, (RuleSet("mine"),))
    with pytest.raises(TargetError, match=r'no rule of mine.*bitenc\.pack.*"generic"'):
        find_kernel(packed_call(), target)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_strategy_asked_for_is_what_runs(strategy, random_layer, layers_module):
    layer = random_layer(0, Encoding.symmetric(1, 2.0), Encoding.symmetric(1, 2.0), name="conv")
    model = tvm_bitenc.build(layers_module([layer]), strategy=strategy, target=GENERIC)
    ran = model.benchmark(layer.input, number=1, repeat=1).layers
    assert [name for name in ran if name.endswith(f"conv_{strategy}")]
    assert np.array_equal(model(layer.input), layer.reference())
