"""Sums of float products: one operation in the module, and the same bits on every CPU."""

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import tirx as T

import tvm_bitenc as be
from benchmarks.emulated import EmulatedModule, missing_tools
from tvm_bitenc.target import load_target
from tvm_bitenc.transform.multiply_add import MultiplyAdd

TARGETS = ("cortex-m3", "cortex-m4", "riscv64", "armv7-neon", "cortex-a72")


@I.ir_module
class Sums:
    @T.prim_func(s_tir=True)
    def main(
        x: T.Buffer((8,), "float32"), n: T.Buffer((8,), "int32"), y: T.Buffer((8,), "float32")
    ):
        for i in range(8):
            with T.sblock("sums"):
                v = T.axis.spatial(8, i)
                y[v] = x[v] + x[v] * x[v]
        for i in range(8):
            with T.sblock("differences"):
                v = T.axis.spatial(8, i)
                y[v] = (x[v] * x[v] - y[v]) - x[v] * T.Cast("float32", n[v] + n[v] * n[v])


def test_sums_and_differences_of_floats():
    """Those of integers stay as they are."""
    before = Sums.clone()
    found = MultiplyAdd(load_target("x86-64-v3"))(Sums)
    assert str(found["main"]).count("call_llvm_pure_intrin") == 3
    assert "n[v] + n[v] * n[v]" in str(found["main"])
    tvm.ir.assert_structural_equal(Sums, before)
    x, n = np.float32([0, -0.0, 1, 2, 3, 4, 5, 6]), np.arange(8, dtype=np.int32)
    y = tvm.runtime.tensor(np.zeros(8, np.float32))
    tvm.compile(found, "llvm")["main"](tvm.runtime.tensor(x), tvm.runtime.tensor(n), y)
    assert np.array_equal(y.numpy(), (x * x - (x + x * x)) - x * (n + n * n))


@pytest.mark.parametrize(
    "config, is_fused",
    [
        ({"mcpu": "x86-64"}, False),
        ({"mcpu": "haswell"}, True),
        ({"mtriple": "armv7-linux-gnueabihf", "mcpu": "cortex-a9"}, False),
        ({"mtriple": "armv7-linux-gnueabihf", "mcpu": "cortex-a15"}, True),
        ({"mtriple": "riscv64-linux-gnu", "mattr": ["+m"]}, False),
        ({"mtriple": "thumbv7m-none-eabi", "mcpu": "cortex-m3"}, True),
    ],
    ids=str,
)
def test_only_where_it_takes_no_time_or_a_bundle_brings_it(config, is_fused):
    target = load_target(tvm.target.Target({"kind": "llvm", **config}))
    assert ("call_llvm_pure_intrin" in str(MultiplyAdd(target)(Sums)["main"])) == is_fused


def layers():
    """Float layers whose sums are of products, each of (1, 6, 8, 8)."""
    rng, op = np.random.default_rng(0), relax.op

    def constant(*shape):
        return relax.const(rng.standard_normal(shape).astype(np.float32))

    return {
        "conv2d": lambda x: op.nn.conv2d(x, constant(4, 6, 3, 3), padding=1),
        "depthwise": lambda x: op.nn.conv2d(x, constant(6, 1, 3, 3), groups=6),
        "matmul": lambda x: op.matmul(x, constant(8, 5)),
        "layer_norm": lambda x: op.nn.layer_norm(x, constant(8), constant(8), axes=[-1]),
        "resize2d": lambda x: op.image.resize2d(x, (13, 11), method="cubic"),
    }


@pytest.mark.sweep(2)
@pytest.mark.parametrize("name", TARGETS)
def test_the_same_bits(name, module_of, same):
    target = load_target(name, threads=1)
    if reason := missing_tools(target):
        pytest.skip(reason)

    def body(builder, x):
        return [builder.emit(layer(x)) for layer in layers().values()]

    mod = module_of([(1, 6, 8, 8)], body)
    x = np.random.default_rng(1).standard_normal((1, 6, 8, 8)).astype(np.float32)
    expected = be.build(mod, threads=1)(x)
    found = EmulatedModule(mod, target).run(x).outputs
    wrong = [n for n, a, b in zip(layers(), found, expected, strict=True) if not same(a, b)]
    assert not wrong
