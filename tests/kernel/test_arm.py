"""Kernels of ARM and RISC-V under QEMU, against the integers of `tvm_bitenc.encoding`."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from tvm import te, tirx
from tvm.target import codegen

import tvm_bitenc
from benchmarks import workloads
from benchmarks.arm import run_layer
from benchmarks.emulated import EmulatedKernel, EmulatedModule, missing_tools
from benchmarks.workloads import Workload, random_planes
from tests.kernel.cases import (
    codes_of,
    in_any_order,
    layers_of,
    of_branches,
    repeated,
    steps_of,
    thresholded,
    unusual,
    with_matrices,
)
from tests.levels import Chain, chains_module
from tests.models import randomised
from tvm_bitenc import encoding, reference
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.nn import DigitsCNN, ResNet18
from tvm_bitenc.op.multiply_add import fused_multiply_add
from tvm_bitenc.schedule import isa_of
from tvm_bitenc.strategy import STRATEGIES
from tvm_bitenc.target import load_target

# QEMU runs them as cortex-a53, cortex-a72, neoverse-n1, max and cortex-a15.
SCALAR = ("cortex-m3", "cortex-m4", "riscv64", "riscv64-zbb")
TARGETS = ("cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n2", "armv7-neon", *SCALAR)
SOME_BITS = ((1, 1), (2, 2), (3, 5))
SIXTEEN = (  # Every number of bits twice on either side.
    *((1, 1), (1, 2), (2, 2), (2, 4), (3, 3), (3, 5), (4, 4), (4, 8)),
    *((5, 3), (5, 6), (6, 5), (6, 7), (7, 1), (7, 6), (8, 7), (8, 8)),
)
WINDOWS = (
    dict(padding=1),
    dict(padding=1, stride=2, out_channels=24),
    dict(kernel=1, out_channels=66),
    dict(padding=(0, 1, 2, 3), kernel=(3, 2)),
)
MANY_BRANCHES = 20  # Of more, one column of taps: compiling takes too long otherwise.
SLOW = pytest.mark.slow


@pytest.fixture
def target(request):
    """A target that QEMU runs here."""
    found = load_target(request.param, threads=1)
    if reason := missing_tools(found):
        pytest.skip(reason)
    return found


def on(*names):
    return pytest.mark.parametrize("target", names, indirect=True)


def slowly(*names):
    return [pytest.param(name, marks=SLOW) for name in names]


def named(layers):
    """Every layer under every strategy, by a name of its own; and strategies by name."""
    found = [
        dataclasses.replace(layer, name=f"{strategy}_{i}")
        for i, layer in enumerate(layers)
        for strategy in STRATEGIES
    ]
    return found, {layer.name: layer.name.split("_")[0] for layer in found}


@pytest.fixture
def check(layers_module, same):
    """Run all layers, under all strategies, in one program."""

    def run(layers, target):
        layers, by_name = named(layers)
        found = EmulatedModule(layers_module(layers), target, by_name).run(
            *(layer.input for layer in layers)
        )
        pairs = zip(layers, found.outputs, strict=True)
        assert not [f"{x.name} {x}" for x, y in pairs if not same(y, x.reference())]

    return run


@pytest.mark.sweep(1)
@on(
    *("cortex-a53", "armv7-neon", "riscv64"),
    *slowly("cortex-a72", "cortex-a76", "neoverse-n2", "cortex-m3", "cortex-m4"),
    *slowly("cortex-a55", "cortex-x1", "neoverse-v1", "raspberry-pi-4"),
)
def test_some_bits(target, random_layer, kinds, check):
    check(layers_of(SOME_BITS, random_layer, kinds), target)


# Codewords that one vector of a table holds, and two or four; odd channels; a row of channels over
# a word; strides.
CODED = (
    (16, (1, 1), dict(channels=64, out_channels=64, padding=1)),
    (9, (2, 2), dict(channels=33, out_channels=24, padding=1)),
    (16, (1, 3), dict(channels=70, out_channels=70, stride=2, padding=(0, 1, 2, 3))),
    (32, (1, 2), dict(channels=64, out_channels=40, kernel=(2, 3))),
    (64, (1, 1), dict(channels=130, out_channels=64, padding=1)),
)


@on(*slowly("cortex-a53", "cortex-a76", "armv7-neon"))
def test_codewords(target, random_layer, layers_module, same):
    fitting = [case for case in CODED if case[0] <= isa_of(target).most_entries]
    layers = []
    for seed, (count, bits, window) in enumerate(fitting):
        weight, act = Encoding.symmetric(bits[0], 2.0), Encoding.unsigned(bits[1], 2.0)
        layer = random_layer(seed, weight, act, name=f"coded_{seed}", **window)
        codes = workloads.codeword_codes(count)
        codes = codes(np.random.default_rng(seed), layer.weight_codes.shape, bits[0])
        layers.append(dataclasses.replace(layer, weight_codes=codes))
    by_name = {layer.name: "codebook" for layer in layers}
    module = EmulatedModule(layers_module(layers), target, by_name)
    found = module.run(*(layer.input for layer in layers))
    assert len(layers) in (3, 5)
    assert [same(y, x.reference()) for x, y in zip(layers, found.outputs)] == [True] * len(layers)


def windows(random_layer, kinds):
    """Layers of all sixteen pairs of bits, odd channels, and kernels of several sizes."""
    encodings = itertools.cycle(itertools.product(kinds.values(), kinds.values()))
    for i, ((m, k), (weight, act)) in enumerate(zip(SIXTEEN, encodings)):
        window = WINDOWS[i % len(WINDOWS)]
        if m * k > MANY_BRANCHES:
            window = dict(kernel=(3, 1), padding=(1, 0))
        channels = (3, 17, 65, 130)[i // 4 if m * k <= MANY_BRANCHES else i % 2]
        yield random_layer(i, weight(m, 2.0), act(k, 2.0), channels=channels, **window)


@SLOW
@on(*(name for name in TARGETS if name != "cortex-a72"))  # It has the rules of cortex-a53.
def test_sixteen_pairs_of_bits(target, random_layer, kinds, check):
    check(list(windows(random_layer, kinds)), target)


@SLOW
@on("cortex-a53", "neoverse-n2", "armv7-neon", *SCALAR)
def test_unusual_layers(target, random_layer, check):
    """Depthwise, grouped, dilated, dense and ternary ones; batches; zero points by channel."""
    check(unusual(random_layer), target)


@SLOW
@on("cortex-a53", "armv7-neon", "riscv64", "cortex-m4")
def test_branch_matrices(target, random_layer, module_of, same):
    layers, by_name = named(with_matrices(random_layer))
    found = EmulatedModule(of_branches(layers, module_of), target, by_name).run(
        *(layer.act_codes for layer in layers)
    )
    pairs = zip(layers, found.outputs, strict=True)
    assert not [f"{x.name} {x}" for x, y in pairs if not same(y, x.accumulators())]


@pytest.mark.slow
@on("cortex-m3", *slowly("cortex-a72", "neoverse-n2", "armv7-neon", *SCALAR[1:]))
def test_thresholds_of_all_epilogues(target, random_layer, module_of, same):
    """Few, many, and uneven thresholds end in codes by different ways."""
    weight, act = Encoding.symmetric(2, 2.0), Encoding.unsigned(3, 2.0)
    layers = [
        random_layer(i, weight, act, channels=17, out_channels=channels, size=(3, 7), padding=1)
        for i, channels in enumerate((66, 24, 8, 16))
    ]
    layers, by_name = named(layers)
    ends = itertools.cycle([(1, True), (2, False), (4, True), (5, False), (8, True)])
    cases = [
        (layer, *steps_of(layer, out_bits, is_even, out_bits))
        for layer, (out_bits, is_even) in zip(layers, ends)
    ]
    module = EmulatedModule(thresholded(cases, module_of), target, by_name)
    outputs = module.run(*(layer.act_codes for layer in layers)).outputs
    wrong = [
        case[0].name for case, y in zip(cases, outputs, strict=True) if not same(y, codes_of(*case))
    ]
    assert not wrong


@SLOW
@on("cortex-a72", "armv7-neon", "neoverse-n2", "cortex-m4", "riscv64")
def test_channels_that_share_weights(target, random_layer, check):
    check(repeated(random_layer), target)


@SLOW
@on("cortex-a53", "armv7-neon", "riscv64")
def test_channels_that_share_weights_in_any_order(
    target, random_layer, layers_module, module_of, same, always_shared
):
    strategies = itertools.cycle(STRATEGIES)
    layers = [
        dataclasses.replace(layer, name=f"{next(strategies)}_{i}")
        for i, layer in enumerate(in_any_order(random_layer))
    ]
    by_name = {layer.name: layer.name.split("_")[0] for layer in layers}
    module = EmulatedModule(layers_module(layers), target, by_name)
    outputs = module.run(*(layer.input for layer in layers)).outputs
    assert not [x.name for x, y in zip(layers, outputs, strict=True) if not same(y, x.reference())]
    layers = [layer for layer in layers if layer.weight_codes.ndim == 4]
    by_name = {layer.name: next(strategies) for layer in layers}
    cases = [(x, *steps_of(x, (1, 2, 3, 4, 8)[i % 5], i % 2 == 0, i)) for i, x in enumerate(layers)]
    module = EmulatedModule(thresholded(cases, module_of), target, by_name)
    outputs = module.run(*(layer.act_codes for layer in layers)).outputs
    assert not [c[0].name for c, y in zip(cases, outputs, strict=True) if not same(y, codes_of(*c))]


def digits():
    return DigitsCNN(2, 2), torch.rand(1, 1, 8, 8) * 16


def resnet():
    """W2A2 with residuals, for images of 64 x 64."""
    return ResNet18(2, 2, 10), torch.randn(1, 3, 64, 64)


@SLOW  # `tests.deploy.bundle` has the digits on 64-bit ARM always.
@pytest.mark.parametrize(
    "make, target",
    [
        *((digits, "cortex-a72"), (digits, "cortex-a76")),
        *((resnet, "cortex-a72"), (resnet, "armv7-neon")),
    ],
    indirect=["target"],
)
def test_networks_give_what_x86_gives(make, target, same):
    torch.manual_seed(0)
    model, x = make()
    mod = tvm_bitenc.from_torch(randomised(model), (x,))
    expected = tvm_bitenc.build(mod, threads=1)(x)
    (y,) = EmulatedModule(mod, target).run(x.numpy()).outputs
    assert len(np.unique(expected)) > 8 and same(y, expected)


@on("armv7-neon", "cortex-m3", "cortex-m4", "cortex-m7")
@pytest.mark.parametrize("source, result", [("int64", "float32"), ("float32", "int64")])
def test_conversions_that_libraries_do(source, result, target):
    """With the ABI that they are compiled for: LLVM looks for it in the parts of the triple."""
    x = np.array([1, -7, 300, 2**33, -12345678]).astype(source)
    tensor = te.placeholder(x.shape, source)
    kernel = te.create_prim_func([tensor, te.compute(x.shape, lambda i: tensor[i].astype(result))])
    run = EmulatedKernel(kernel, target).run([x], x.shape, result)
    assert np.array_equal(run.output, x.astype(result))


def mixed(rng, count):
    """Floats of all sizes."""
    values = rng.standard_normal(count) * 2.0 ** rng.integers(-40, 40, count)
    return values.astype(np.float32)


@on("cortex-m3", "cortex-m4", "riscv64")
def test_products_and_sums_round_once(target):
    """Between two floats, where a remainder decides that a sum of doubles has no room for."""
    rng, half = np.random.default_rng(0), np.float32(1 + 2**-12)
    remainders = np.float32([2**-70, -(2**-70), 0, 2**-149, -(2**-149), np.inf, np.nan])
    special = [np.full(len(remainders), half), np.full(len(remainders), half), remainders]
    values = [np.concatenate([one, mixed(rng, 500)]) for one in special]
    values[2][-250:] = -(values[0] * values[1])[-250:]  # Most of these sums cancel.
    tensors = [te.placeholder(value.shape, "float32") for value in values]
    fused = tirx.const(codegen.llvm_lookup_intrinsic_id("llvm.fma"), "uint32")

    def element(i):
        return tirx.call_llvm_pure_intrin("float32", fused, *(tensor[i] for tensor in tensors))

    kernel = te.create_prim_func([*tensors, te.compute(values[0].shape, element)])
    run = EmulatedKernel(kernel, target).run(values, values[0].shape, "float32")
    with np.errstate(invalid="ignore"):
        expected = fused_multiply_add(*values)
    assert np.array_equal(run.output, expected, equal_nan=True)


def expected_planes(workload, bits):
    """Planes that the layer of `layer_module` gives, by the integer reference."""
    rng = np.random.default_rng(0)
    act, weight = workloads.activation_encoding(bits[1]), Encoding.symmetric(bits[0])
    codes = rng.integers(0, 2 ** bits[0], workload.weight_shape, dtype=np.uint8)
    limits, direction = workloads.random_thresholds(weight.integers(codes), act, rng)
    inputs = encoding.unpack(random_planes(workload, bits[1]), workload.in_channels)
    acc = reference.conv2d(np.moveaxis(inputs, -1, 1), act, codes, weight, padding=workload.padding)
    along = acc * direction[:, None, None]
    reached = (along[:, None] >= limits[None, :, :, None, None]).sum(axis=1).astype(np.uint8)
    return encoding.pack(np.ascontiguousarray(np.moveaxis(reached, 1, -1)), bits[1])


@pytest.mark.parametrize("bits, most", [((1, 1), 3.5), ((2, 2), 11)], ids=str)
@on("cortex-a72")
def test_few_instructions(bits, most, target):
    """Padding, products and thresholds of the whole layer, for 128 products."""
    layer = Workload("3x3 256 @14", "3x3", 256, 256, 14, 3, 1, 1)
    run = run_layer(layer, bits, target, "xnor")
    assert np.array_equal(run.output, expected_planes(layer, bits))
    assert run.instructions <= most * layer.macs / 128


@SLOW
@on("cortex-a53", "cortex-a76", "neoverse-n2", "armv7-neon", "riscv64", "cortex-m3")
@pytest.mark.parametrize("first", [0, 3, 6])
def test_layers_of_levels(target, first, module_of, same):
    chains = [
        Chain(seed, name=f"{strategy}_{seed}")
        for seed in range(first, first + 3)
        for strategy in STRATEGIES
    ]
    by_name = {
        f"{chain.name}_{layer}": chain.name.split("_")[0] for chain in chains for layer in (0, 1)
    }
    module = EmulatedModule(chains_module(chains, module_of), target, by_name)
    outputs = module.run(*(chain.x for chain in chains)).outputs
    assert not [c.name for c, y in zip(chains, outputs) if not same(y, c.reference())]
