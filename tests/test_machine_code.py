"""LLVM ends the process where it can't select instructions: never the one that builds."""

import os
import signal
import time

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from tvm import relax
from tvm.script.ir_builder import IRBuilder
from tvm.target.codegen import llvm_lookup_intrinsic_id
from tvm.tirx.script import builder as T

import tvm_bitenc as be
from tvm_bitenc import compiler, machine_code
from tvm_bitenc.errors import BitencError
from tvm_bitenc.kernel.tir import constant, vector
from tvm_bitenc.nn import QConv2d, QLinear
from tvm_bitenc.transform import no_lowering


class Network(nn.Module):
    """A first layer of 8 bits, a border, pooling, and a dense layer: few and small ones."""

    def __init__(self):
        super().__init__()
        self.first = QConv2d(1, 64, 1, weight_bits=8, act_bits=8)
        self.conv = QConv2d(64, 64, 3, padding=1, weight_bits=2, act_bits=2)
        self.classifier = QLinear(64 * 2 * 2, 10, weight_bits=8, act_bits=8)

    def forward(self, x):
        x = self.conv(torch.max_pool2d(self.first(x), 2))
        return self.classifier(x.flatten(1))


@pytest.fixture(scope="module")
def network() -> tvm.IRModule:
    return be.from_torch(Network().eval(), (torch.rand(1, 1, 4, 4),))


def _module(kernel: tvm.tirx.PrimFunc, is_constant: bool = False) -> tvm.IRModule:
    """A network that adds to 16 int32 what a kernel makes of them, or of ones."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((16,), "int32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            var = builder.add_func(kernel.without_attr("global_symbol"), "packed_conv2d_conv7_int8")
            argument = relax.const(np.ones(16, np.int32), "int32") if is_constant else x
            made = builder.emit(relax.call_tir(var, [argument, argument], x.ty))
            out = builder.emit_output(relax.op.add(x, made))
        builder.emit_func_output(out)
    return builder.get()


def _dot_kernel() -> tvm.tirx.PrimFunc:
    """A kernel that calls an instruction of AVX-512 VNNI, whatever the target has."""
    sums, number = vector("int32", 16), llvm_lookup_intrinsic_id("llvm.x86.avx512.vpdpbusd.512")
    with IRBuilder() as builder, T.prim_func():
        T.func_name("planted")
        x, start, y = (T.arg(name, T.buffer((16,), "int32")) for name in ("x", "start", "y"))
        ones = constant(1, "int8", 64)
        lanes = T.Ramp(0, 1, 16)
        factors = T.reinterpret(vector("int8", 64), x[lanes])
        dot = T.call_llvm_pure_intrin(sums, T.uint32(number), start[lanes], ones, factors)
        T.buffer_store(y, dot, [lanes])
    return builder.get().with_attr({"tirx.is_scheduled": True, "op_pattern": 8})


def test_a_kernel_that_llvm_cannot_translate_is_an_error_naming_its_layer():
    with pytest.raises(BitencError, match=r"kernel 'packed_conv2d_conv7_int8'.*LLVM ERROR"):
        be.build(_module(_dot_kernel()), "x86-64-v3", pipeline=no_lowering)


def test_a_layer_of_a_network_is_named(network, monkeypatch):
    """The compiler's own kernels, were they suspected, carry their layers' names."""
    names = "bitenc_steps", "packed_conv2d"  # The network's, and kernels' where they are alone.
    monkeypatch.setattr(machine_code, "is_unusual", lambda t, _: any(name in t for name in names))
    monkeypatch.setattr(machine_code, "fate_of", lambda _function, _seconds: "it fell ill")
    with pytest.raises(BitencError, match=r"kernel '\w+' of layer '\w+': .*it fell ill"):
        be.build(network, "x86-64-v3")


@pytest.mark.sweep(3)
@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4", "cortex-a72", "neoverse-n2"])
@pytest.mark.parametrize("strategy", ["xnor", "lut", "int8"])
def test_what_the_compiler_makes_is_known(network, target, strategy, monkeypatch):
    """No child is needed for the compiler's own kernels: they would cost time.

    Neither is machine code needed to know that: it isn't made.
    """
    monkeypatch.setattr(compiler, "model_of", lambda program: program)
    monkeypatch.setattr(machine_code, "_try", lambda *_: pytest.fail("a child was asked"))
    be.build(network, target, strategy)


@pytest.mark.parametrize(
    ("text", "unusual"),
    [
        ("%x = load <16 x i8>, ptr %p", False),
        ("%x = load <5 x i64>, ptr %p", False),
        ("%x = load <vscale x 4 x i32>, ptr %p", True),
        ("%x = load <4 x i24>, ptr %p", True),
        ("%x = load <1024 x i64>, ptr %p", True),
        ("call <64 x i8> @llvm.x86.avx2.pshuf.b(", False),
        ("call <16 x i32> @llvm.x86.avx512.vpdpbusd.512(", True),
        ("call <8 x i64> @llvm.ctpop.v8i64(", False),
    ],
)
def test_what_is_unusual(text, unusual):
    assert machine_code.is_unusual(text, {"llvm.x86.avx2.pshuf.b"}) == unusual


def test_how_a_child_ends():
    assert machine_code.fate_of(lambda: None, 10) == ""
    assert "SIGABRT" in machine_code.fate_of(os.abort, 10)
    assert machine_code.fate_of(lambda: 1 / 0, 10) == "ZeroDivisionError: division by zero"
    assert "more than 0.1 s" in machine_code.fate_of(lambda: time.sleep(60), 0.1)
    assert "SIGKILL" in machine_code.fate_of(lambda: os.kill(os.getpid(), signal.SIGKILL), 10)


def test_constants_are_not_folded_by_kernels_of_the_target():
    """LLVM would compile such a kernel for its plain CPU, which lacks the instruction."""
    be.build(_module(_dot_kernel(), is_constant=True), "znver5", pipeline=no_lowering)
