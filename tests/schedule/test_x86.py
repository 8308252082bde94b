"""Rules for x86 CPUs: which take a layer, and tiles that fit it."""

import itertools
from collections import Counter

import numpy as np
import pytest
import tvm

from benchmarks.arm import layer_of
from benchmarks.assembly import PRODUCTS, assembly, counts, hottest_loop, kind_of
from benchmarks.workloads import WORKLOADS
from tvm_bitenc.branches import BranchGeometry
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.kernel.nest.geometry import padded_blocks
from tvm_bitenc.layer import ConvLayer
from tvm_bitenc.op.packed import conv_layer_of, packed_conv2d_op
from tvm_bitenc.op.registration import is_call_to
from tvm_bitenc.schedule import avx2, avx512, find_kernel, rule_sets_of, strategy_costs, x86
from tvm_bitenc.schedule.vector import default_tile
from tvm_bitenc.strategy import STRATEGIES
from tvm_bitenc.target import DEFAULT_RULES, Target, load_target, native_target
from tvm_bitenc.transform import default_pipeline
from tvm_bitenc.transform.visit import visit_calls

# How far works may be from the assembly: part of a kind, or of the whole loop where it is rare.
FAR, FEW = 0.25, 0.06
X86_TARGETS = ("x86-64-v3", "x86-64-v4", "emeraldrapids", "znver4", "znver5")
AVX512 = ("avx512", "avx2", "generic")
RULES = {
    "x86-64-v3": ("avx2", "generic"),
    "x86-64-v4": AVX512,
    "emeraldrapids": AVX512,
    "sapphirerapids": AVX512,
    "znver4": AVX512,
    "znver5": AVX512,
    "aarch64": ("neon", "generic"),
    "cortex-a76": ("dotprod", "neon", "generic"),
    "neoverse-n2": ("i8mm", "dotprod", "neon", "generic"),
    "armv7-neon": ("neon", "generic"),
}


def call_of(random_layer, layers_module, target, strategy, **window):
    """The packed convolution that a layer becomes."""
    two = Encoding.symmetric(2, 2.0)
    mod = layers_module([random_layer(0, two, two, channels=64, out_channels=64, **window)])
    found = []

    def look(call, _graph):
        if is_call_to(call, packed_conv2d_op):
            found.append(call)

    visit_calls(default_pipeline(target, strategy).until("bitenc.DirectCodes").run(mod), look)
    (call,) = found
    return call


def maker_of(call, target):
    """The rule set whose kernel a target gets."""
    for rules in rule_sets_of(target):
        if any(rule(call, target) is not None for rule in rules.rules):
            return rules.name
    return None


@pytest.mark.parametrize("name, rules", RULES.items())
def test_rules_of_the_shipped_targets(name, rules):
    assert load_target(name).rules == rules


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "name, wanted", [("x86-64-v3", "avx2"), ("x86-64-v4", "avx512"), ("znver5", "avx512")]
)
def test_vector_kernels_are_used(name, wanted, strategy, random_layer, layers_module):
    target = load_target(name)
    call = call_of(random_layer, layers_module, target, strategy)
    assert maker_of(call, target) == wanted
    plain = Target("plain", target.tvm_target, ("generic",))
    text = find_kernel(call, target).function.script()
    assert text != find_kernel(call, plain).function.script()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_native_kernels_are_not_the_generic_ones(strategy, random_layer, layers_module):
    target = native_target()
    if not target.features >= avx2.REQUIRED:
        pytest.skip("this CPU has no AVX2: run the tests on one that has it as well")
    call = call_of(random_layer, layers_module, target, strategy)
    has_avx512 = target.features >= avx512.REQUIRED
    assert maker_of(call, target) == ("avx512" if has_avx512 else "avx2")


def test_rules_decline_what_a_cpu_lacks(random_layer, layers_module):
    cpus = {"x86-64": "generic", "haswell": "avx2", "skylake-avx512": "avx512"}
    for cpu, wanted in cpus.items():
        target = load_target(tvm.target.Target({"kind": "llvm", "mcpu": cpu}))
        call = call_of(random_layer, layers_module, target, "xnor")
        assert target.rules == DEFAULT_RULES and maker_of(call, target) == wanted


def test_instructions_that_some_cpus_have():
    plain, zen5 = (avx512.isa_of(load_target(name)) for name in ("x86-64-v4", "znver5"))
    assert not plain.has_popcount and not plain.has_dot
    assert zen5.has_popcount and zen5.has_dot
    assert avx512.isa_of(load_target("x86-64-v3")) is None
    assert not avx2.isa_of(load_target("x86-64-v3")).has_dot
    assert avx2.isa_of(load_target("aarch64")) is None


def layers():
    rng, sizes = np.random.default_rng(0), (1, 5, 7, 13, 56)
    for size, channels, out, bits in itertools.product(sizes, (3, 64, 130), (5, 64, 96), (1, 2, 8)):
        kappa = tuple(2**b for b in range(bits))
        codes = rng.integers(0, 2**bits, (out, channels, 1, 3), dtype=np.uint8)
        geometry = BranchGeometry(kappa, kappa, 0, padding=(0, 1, 0, 1))
        shape = (2, size, size, channels)
        yield ConvLayer("conv", shape, codes, np.zeros(out, np.int32), geometry)


@pytest.mark.parametrize("threads", [1, 2, 64])
@pytest.mark.parametrize("name", X86_TARGETS)
def test_tiles_divide_what_they_must(name, threads):
    target = load_target(name)
    isa = avx512.isa_of(target) or avx2.isa_of(target)
    for layer, strategy in itertools.product(layers(), STRATEGIES):
        layer = layer.with_strategy(strategy)
        _, made = x86.FAMILY.product_of(layer, isa)
        tile = default_tile(layer, isa, threads, made, x86.FAMILY)
        height, width = layer.output_size
        product = made(layer, isa, tile)
        assert 1 <= tile.pixels <= width and height % tile.rows == 0
        assert padded_blocks(layer, product.block) % tile.splits == 0


@pytest.mark.parametrize("name", X86_TARGETS)
def test_auto_is_the_cheapest_by_the_first_rule_set_that_knows(name, random_layer, layers_module):
    target = load_target(name)
    call = call_of(random_layer, layers_module, target, "auto")
    layer = conv_layer_of(call)
    costs = strategy_costs(layer, target)
    assert set(costs) == set(STRATEGIES) and layer.strategy == min(costs, key=costs.get)
    generic = strategy_costs(layer, Target("plain", target.tvm_target, ("generic",)))
    assert costs != generic


# The loop that sums is nearly all of this layer.
LARGE = next(w for w in WORKLOADS if w.name == "3x3 256 @14")
LOOPS = [
    ("znver5", "xnor", (1, 1)),
    ("znver5", "lut", (2, 2)),
    ("x86-64-v3", "int8", (2, 2)),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in [
            *(("znver5", "xnor", bits) for bits in [(1, 2), (2, 2), (3, 3), (4, 4)]),
            *(("znver5", "lut", bits) for bits in [(1, 1), (1, 2), (2, 3), (3, 3)]),
            ("znver5", "int8", (4, 4)),
            *(("x86-64-v3", "xnor", bits) for bits in [(1, 1), (2, 2), (4, 4)]),
        ]
    ),
]


@pytest.mark.parametrize("name, strategy, bits", LOOPS, ids=str)
def test_works_are_near_the_instructions_of_loops(name, strategy, bits):
    target, product = load_target(name), PRODUCTS[name, strategy]
    isa = avx512.isa_of(target) or avx2.isa_of(target)
    loop = hottest_loop(assembly(LARGE, bits, name, strategy), product.mnemonic)
    done = product.products * sum(line.startswith(product.mnemonic) for line in loop)
    done /= {"counts": counts(*bits), "weight": bits[0], "none": 1}[product.divided_by]
    layer = layer_of(LARGE, bits, target)
    work = x86.works(layer, isa)[strategy]
    if strategy == "lut" and isa.has_wide_lookup:  # Its tables take long, too.
        work = x86.wide_loop(layer, isa)
    work = work.times(done / LARGE.macs)
    counted = Counter(map(kind_of, loop))
    assert work.instructions == pytest.approx(len(loop), rel=FAR)
    for kind in ("vector", "count", "lookup", "product"):
        assert getattr(work, kind) == pytest.approx(counted[kind], rel=FAR, abs=FEW * len(loop))


@pytest.mark.parametrize(
    "bits, strategy",
    [((2, 2), "lut"), ((3, 3), "lut"), ((4, 4), "int8"), ((2, 8), "int8")],
    ids=str,
)
def test_weights_that_come_from_memory(bits, strategy):
    """Some share bytes, and are loaded behind products; to take them apart takes as long again."""
    target = load_target("znver4")
    layer = layer_of(next(w for w in WORKLOADS if w.name == "dense 4096->4096 x1"), bits, target)
    costs = strategy_costs(layer, target)
    assert min(costs, key=costs.__getitem__) == strategy
