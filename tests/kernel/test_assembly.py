"""Kernels are made of the instructions that their strategies stand for."""

import functools
from dataclasses import replace

import pytest
import tvm

import benchmarks.assembly
from benchmarks.workloads import WORKLOADS, Workload, layer_module, planes_pipeline
from tvm_bitenc.target import DEFAULT_RULES, load_target

LAYER = Workload("conv", "3x3", 64, 64, 8, 3, 1, 1)


@functools.cache
def assembly(target_name, strategy, bits=2):
    target = replace(load_target(target_name, threads=1), rules=DEFAULT_RULES)
    mod = planes_pipeline(target, strategy).run(layer_module(LAYER, bits, bits))
    (name,) = [v for v in mod.get_global_vars() if "packed_conv2d" in v.name_hint]
    main = tvm.IRModule({"main": mod[name].with_attr("global_symbol", "main")})
    return tvm.compile(main, target=target.tvm_target).mod.inspect_source("asm")


@pytest.mark.parametrize(
    "target, strategy, wanted, absent",
    [
        ("x86-64-v3", "xnor", ["vpshufb", "vpsadbw", "ymm"], ["zmm", "vpopcntq"]),
        ("x86-64-v3", "lut", ["vpshufb", "ymm"], ["zmm"]),
        ("x86-64-v3", "int8", ["vpmaddubsw", "vpmaddwd", "ymm"], ["zmm", "vpdpbusd"]),
        ("znver5", "xnor", ["vpopcntq", "zmm"], ["vpsadbw"]),
        ("znver5", "lut", ["vpermb", "zmm"], ["vpshufb"]),
        ("x86-64-v4", "lut", ["vpshufb", "zmm"], ["vpermb"]),
        ("znver5", "int8", ["vpdpbusd", "zmm"], ["vpmaddubsw"]),
    ],
)
def test_instructions(target, strategy, wanted, absent):
    text = assembly(target, strategy)
    assert [name for name in wanted if name not in text] == []
    assert [name for name in absent if name in text] == []


@pytest.mark.parametrize(
    "target, strategy, layer, prefetches",
    [
        ("znver4", "lut", "3x3 256 @14", True),
        ("znver4", "int8", "3x3 256 @14", True),
        ("znver4", "lut", "3x3 64 @56", False),  # All weights stay in the caches.
        ("x86-64-v3", "int8", "3x3 256 @14", False),
    ],
)
def test_weights_of_the_next_block_are_prefetched(target, strategy, layer, prefetches):
    workload = next(w for w in WORKLOADS if w.name == layer)
    text = benchmarks.assembly.assembly(workload, (2, 2), target, strategy)
    assert ("prefetcht1" in text) is prefetches


def test_products_that_could_saturate_are_widened_first():
    text = assembly("x86-64-v3", "int8", 8)
    assert "vpmaddwd" in text and "vpmaddubsw" not in text
