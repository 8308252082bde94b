"""After every pass the module still runs and gives the answer of the module as imported."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import tvm_ffi
from tvm import relax

import tvm_bitenc
from tests.transform.expand_branches import ExpandBranches
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import BitencError
from tvm_bitenc.op import quantize
from tvm_bitenc.strategy import STRATEGIES
from tvm_bitenc.target import load_target, native_target
from tvm_bitenc.transform import Pipeline, default_pipeline, no_lowering
from tvm_bitenc.transform.fold import Fold

op = relax.op
PASSES = default_pipeline(native_target()).names


def const(values):
    return relax.const(np.asarray(values, np.float32))


@pytest.fixture(scope="module")
def network(random_layer, module_of):
    """Every pass has work here, and every float is exact: powers of two throughout."""
    rng = np.random.default_rng(0)
    first = random_layer(
        0, Encoding.symmetric(3, 2.0), Encoding.symmetric(2, 2.0), channels=3, padding=1,
        out_channels=12, batch=2, size=(8, 6),
    )  # fmt: skip
    per_channel = Encoding(2, 2.0 ** rng.integers(0, 3, 10), rng.integers(0, 4, 10) / 2)
    second = random_layer(
        1, per_channel, Encoding.unsigned(3, 2.0), channels=12, out_channels=10, groups=2
    )
    third = random_layer(
        2, Encoding.ternary(2.0), Encoding.signed(2, 4.0), channels=20, dense=True, out_channels=8
    )
    twice = np.concatenate([third.weight_codes] * 2)
    third = dataclasses.replace(third, weight_codes=twice)
    gamma = 2.0 ** rng.integers(-6, -3, 12) * rng.choice([-1, 1], 12)
    gamma[3] = 0

    def body(builder, x):
        y = builder.emit(op.multiply(first.emit(builder, x), const(gamma.reshape(1, -1, 1, 1))))
        y = builder.emit(op.add(y, const(rng.integers(-4, 5, (1, 12, 1, 1)) / 4)))
        y = builder.emit(op.nn.max_pool2d(y, (2, 2), (2, 2)))
        shortcut = builder.emit(op.clip(y, -8, 8))
        coarse, fine = (
            builder.emit(quantize(shortcut, Encoding.signed(3, scale))) for scale in (4.0, 2.0)
        )
        summed = builder.emit(
            quantize(builder.emit(op.add(coarse, fine)), Encoding.unsigned(3, 2.0))
        )
        pooled = builder.emit(op.nn.avg_pool2d(summed, (2, 2)))
        y = second.emit(builder, shortcut)
        y = builder.emit(op.add(builder.emit(op.multiply(y, const(0.0625))), const(0.5)))
        y = builder.emit(op.reshape(builder.emit(op.nn.relu(y)), (2, 1, 20)))
        y = third.emit(builder, y)
        divided = builder.emit(op.round(builder.emit(op.divide(y, const(4)))))
        spelt = builder.emit(op.multiply(builder.emit(op.clip(divided, 0, 7)), const(4)))
        again = builder.emit(quantize(spelt, Encoding.unsigned(2, 8.0)))
        halves = builder.emit(op.floor(builder.emit(op.divide(x, const(2)))))
        bits = builder.emit(op.floor_mod(halves, const(2)))
        signs = quantize(const(rng.choice([-1, 1], (4, 3, 1, 1))), Encoding.symmetric(1, 2.0))
        of_bits = builder.emit(op.nn.conv2d(bits, builder.emit(signs)))
        return [y, shortcut, spelt, again, summed, pooled, of_bits]

    return module_of([first.act_codes.shape], body), first.input


@pytest.fixture(scope="module")
def oracle(network, outputs_of):
    mod, x = network
    outputs = outputs_of(mod, [x], pipeline=no_lowering)
    assert all(len(np.unique(y)) > 3 for y in outputs)
    return outputs


# Strategies differ from the pass bitenc.Strategy on.
CHOSEN = PASSES.index("bitenc.Strategy") + 1
STAGES = [
    *((count, "auto") for count in range(CHOSEN)),
    *((count, strategy) for count in range(CHOSEN, len(PASSES) + 1) for strategy in STRATEGIES),
]


@pytest.mark.sweep(5)
@pytest.mark.parametrize(
    "count, strategy", STAGES, ids=[f"{['none', *PASSES][n]}-{name}" for n, name in STAGES]
)
def test_the_answer_after_each_pass(count, strategy, network, oracle, outputs_of, same):
    mod, x = network

    def first(*arguments):
        return Pipeline(default_pipeline(*arguments).passes[:count])

    outputs = outputs_of(mod, [x], pipeline=first, strategy=strategy)
    assert all(map(same, outputs, oracle))


def test_every_pass_changes_this_network_and_none_its_input(network):
    mod = network[0]
    for step in default_pipeline(native_target()).passes:
        before = tvm_ffi.structural_hash(mod)
        after = step(mod)
        assert tvm_ffi.structural_hash(mod) == before, step.info.name
        assert not tvm_ffi.structural_equal(mod, after), step.info.name
        mod = after


@pytest.mark.sweep(1)
@pytest.mark.parametrize("place", ["bitenc.Lower", "bitenc.Fold"])
def test_expanded_branches(place, network, oracle, outputs_of, same):
    mod, x = network

    def pipeline(*arguments):
        return default_pipeline(*arguments).insert_after(place, ExpandBranches())

    outputs = outputs_of(mod, [x], pipeline=pipeline)
    assert all(map(same, outputs, oracle))


def test_every_pass_is_shown_before_and_after():
    for name in default_pipeline(load_target("vta")).names:
        file = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.removeprefix("bitenc.")).lower()
        text = Path(__file__).with_name(f"test_{file}.py").read_text()
        assert "class Before:" in text and "class After:" in text, name


def test_places(network):
    pipeline = default_pipeline(native_target())
    fold, lower = (pipeline.passes[pipeline.names.index(f"bitenc.{n}")] for n in ("Fold", "Lower"))
    assert pipeline.insert_after("bitenc.Codes", fold).names[7:9] == ["bitenc.Fold"] * 2
    assert pipeline.insert_before("bitenc.Canonicalize", lower, fold).names[:3] == [
        "bitenc.Lower",
        "bitenc.Fold",
        "bitenc.Canonicalize",
    ]
    assert pipeline.until("bitenc.Fold").names == PASSES[: PASSES.index("bitenc.Fold")]
    assert pipeline.names == PASSES
    with pytest.raises(BitencError, match=r"'bitenc.Fuse'.*Its passes are bitenc.Canonicalize"):
        pipeline.insert_after("bitenc.Fuse", fold)


def test_phases_are_listed_with_their_passes():
    lines = str(default_pipeline(native_target())).splitlines()
    assert [line.strip() for line in lines if line.startswith("  ")] == PASSES
    phases = [line for line in lines if not line.startswith("  ")]
    assert lines[0] == phases[0] and len(phases) == 4
    alone = Pipeline([Fold(), *default_pipeline(native_target()).parts])
    assert alone.names == ["bitenc.Fold", *PASSES]
    assert alone.until("bitenc.Lower").names == ["bitenc.Fold", *PASSES[:4]]


def test_observe_sees_the_module_in_front_of_each_pass(network, ops_of):
    seen = {}
    default_pipeline(native_target()).run(network[0], lambda name, mod: seen.update({name: mod}))
    assert list(seen) == PASSES
    assert seen["bitenc.Canonicalize"].same_as(network[0])
    assert "bitenc.branch_conv2d" in ops_of(seen["bitenc.Fold"])
    assert "bitenc.threshold" not in ops_of(seen["bitenc.Fold"])
    assert "bitenc.threshold" in ops_of(seen["bitenc.Layout"])


def test_build_leaves_its_module_as_it_was(network, ops_of):
    mod = network[0]
    before = ops_of(mod)
    tvm_bitenc.build(mod)
    assert ops_of(mod) == before
