"""ARM kernels under QEMU, against the integers of `tvm_bitenc.encoding`."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

import tvm_bitenc
from benchmarks import workloads
from benchmarks.arm import run_layer
from benchmarks.emulated import EmulatedModule, missing_tools
from benchmarks.workloads import Workload, random_planes
from tests.kernel.cases import codes_of, layers_of, steps_of, thresholded, unusual
from tvm_bitenc import encoding
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.nn import DigitsCNN, ResNet18
from tvm_bitenc.target import load_target
from tvm_bitenc.transform.strategy import STRATEGIES

# QEMU runs them as cortex-a53, cortex-a72, neoverse-n1, max and cortex-a15.
TARGETS = ("cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n2", "armv7-neon")
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


def need(target):
    if reason := missing_tools(target):
        pytest.skip(reason)
    return target


@pytest.fixture(params=TARGETS)
def target(request):
    """A target that QEMU runs here."""
    return need(load_target(request.param, threads=1))


def named(layers, strategies=STRATEGIES):
    """Each layer once for every strategy: layers under names of their own, and strategies."""
    found = [
        dataclasses.replace(layer, name=f"{strategy}_{i}")
        for i, layer in enumerate(layers)
        for strategy in strategies
    ]
    return found, {layer.name: layer.name.split("_")[0] for layer in found}


def check(layers, target, layers_module, same, strategies=STRATEGIES):
    """Run all layers in one program."""
    layers, by_name = named(layers, strategies)
    run = EmulatedModule(layers_module(layers), target, by_name).run(*(x.input for x in layers))
    pairs = zip(layers, run.outputs, strict=True)
    wrong = [f"{x.name} {x}" for x, y in pairs if not same(y, x.reference())]
    assert not wrong


def windows(bits, random_layer, kinds):
    """Layers of odd channels with padding, strides and kernels of several sizes."""
    return [
        dataclasses.replace(
            random_layer(
                i,
                layer.weight,
                layer.act,
                channels=layer.act_codes.shape[1],
                size=(4, 7),
                **WINDOWS[i % len(WINDOWS)],
            )
        )
        for i, layer in enumerate(layers_of(bits, random_layer, kinds))
    ]


def test_some_bits(target, random_layer, kinds, layers_module, same):
    check(layers_of(SOME_BITS, random_layer, kinds), target, layers_module, same)


@pytest.mark.slow
def test_sixteen_pairs_of_bits(target, random_layer, kinds, layers_module, same):
    check(windows(SIXTEEN, random_layer, kinds), target, layers_module, same)


@pytest.mark.slow
def test_unusual_layers(target, random_layer, layers_module, same):
    check(unusual(random_layer), target, layers_module, same)
