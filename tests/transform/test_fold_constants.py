"""Constants are computed while compiling, but for what runs on the target alone, or is empty."""

import numpy as np
import pytest
import tvm
from tvm import relax, topi
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

import tvm_bitenc as be
from tvm_bitenc.transform import no_lowering
from tvm_bitenc.transform.fold_constants import FoldConstants

ONE, TWO = (relax.const(np.full(4, value, np.float32)) for value in (1, 2))


@I.ir_module
class Before:
    @T.prim_func(private=True, s_tir=True)
    def plain(x: T.Buffer((4,), "float32"), y: T.Buffer((4,), "float32")):
        for i in range(4):
            with T.sblock("plain"):
                v = T.axis.spatial(4, i)
                y[v] = x[v] + T.float32(1)

    @T.prim_func(private=True, s_tir=True)
    def scheduled(x: T.Buffer((4,), "float32"), y: T.Buffer((4,), "float32")):
        T.func_attr({"tirx.is_scheduled": True})
        for i in range(4):
            with T.sblock("scheduled"):
                v = T.axis.spatial(4, i)
                y[v] = x[v] + T.float32(1)

    @R.function
    def main(x: R.Tensor((4,), "float32")):
        cls = Before
        with R.dataflow():
            a = R.call_tir(cls.plain, (ONE,), out_ty=R.Tensor((4,), "float32"))
            b = R.call_tir(cls.scheduled, (ONE,), out_ty=R.Tensor((4,), "float32"))
            y = R.add(a, b)
            R.output(y)
        return y


@I.ir_module
class After:
    @T.prim_func(private=True, s_tir=True)
    def scheduled(x: T.Buffer((4,), "float32"), y: T.Buffer((4,), "float32")):
        T.func_attr({"tirx.is_scheduled": True})
        for i in range(4):
            with T.sblock("scheduled"):
                v = T.axis.spatial(4, i)
                y[v] = x[v] + T.float32(1)

    @R.function
    def main(x: R.Tensor((4,), "float32")):
        cls = After
        with R.dataflow():
            b = R.call_tir(cls.scheduled, (ONE,), out_ty=R.Tensor((4,), "float32"))
            y = R.add(TWO, b)
            R.output(y)
        return y


def test_golden(assert_same_ir):
    assert_same_ir(FoldConstants()(Before), After)


def test_what_constants_give_is_constant_and_one_program_computes_all(monkeypatch):
    programs, compile_ = [], tvm.compile
    monkeypatch.setattr(tvm, "compile", lambda *a, **k: programs.append(1) or compile_(*a, **k))
    x = relax.Var("x", relax.TensorType((4,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            two = builder.emit_te(topi.add, ONE, ONE)
            three = builder.emit_te(topi.add, two, ONE)
            six = builder.emit_te(topi.multiply, two, three)
            y = builder.emit_te(topi.multiply, x, builder.emit(six))
            y = builder.emit_output(relax.Tuple([y, three]))
        builder.emit_func_output(y)
    folded = FoldConstants()(builder.finalize())
    assert len(programs) == 1
    assert [var.name_hint for var in folded.get_global_vars()] == ["main", "multiply"]
    monkeypatch.undo()
    numbers = np.arange(4, dtype=np.float32)
    found = be.build(folded, threads=1, pipeline=no_lowering)(numbers)
    assert [list(value) for value in found] == [list(6 * numbers), [3] * 4]


def test_the_module_is_left_as_it_was():
    mod = Before.clone()
    FoldConstants()(mod)
    tvm.ir.assert_structural_equal(mod, Before)


@pytest.mark.parametrize("shape", [(0,), (2, 0, 3)])
def test_empty_constants_are_outputs_and_operands(shape):
    """TVM writes an empty constant, and doesn't read it again where it is the last one."""
    empty = relax.const(np.zeros(shape, np.float32))
    x = relax.Var("x", relax.TensorType((1,), "float32"))
    for is_operand in (False, True):
        builder = relax.BlockBuilder()
        with builder.function("main", [x]):
            y = builder.emit(relax.op.multiply(x, empty)) if is_operand else empty
            builder.emit_func_output(y)
        y = be.build(builder.get(), threads=1)(np.ones(1, np.float32))
        assert y.shape == shape and y.dtype == np.float32
