"""The graph rewriter, by the pass that its guide shows."""

from dataclasses import dataclass

import tvm
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_bitenc.target import Target, native_target
from tvm_bitenc.transform.analysis.float32 import op_name
from tvm_bitenc.transform.rewrite import merge_equal, rewrite_calls


@tvm.transform.module_pass(opt_level=0, name="bitenc.DropDoubleNegation")
@dataclass(frozen=True)
class DropDoubleNegation:
    target: Target

    def transform_module(self, mod, _ctx):
        return rewrite_calls(mod, _drop)


def _drop(call, graph):
    if op_name(call) != "relax.negative":
        return None
    inner = graph.definition(call.args[0])
    return inner.args[0] if op_name(inner) == "relax.negative" else None


@I.ir_module
class Before:
    @R.function
    def main(x: R.Tensor((2, 3), "float32")):
        with R.dataflow():
            lv = R.negative(x)
            lv1 = R.negative(lv)
            lv2 = R.nn.relu(lv1)
            R.output(lv2)
        return lv2

    @R.function
    def external(x: R.Tensor((2, 3), "float32")) -> R.Tensor((2, 3), "float32"):
        R.func_attr({"Codegen": "bitenc_vta"})
        y = R.negative(R.negative(x))
        return y


@I.ir_module
class After:
    @R.function
    def main(x: R.Tensor((2, 3), "float32")):
        with R.dataflow():
            lv2 = R.nn.relu(x)
            R.output(lv2)
        return lv2

    @R.function
    def external(x: R.Tensor((2, 3), "float32")) -> R.Tensor((2, 3), "float32"):
        R.func_attr({"Codegen": "bitenc_vta"})
        y = R.negative(R.negative(x))
        return y


def test_golden(assert_same_ir):
    """What nothing reads is dropped; another code generator's function stays as it is."""
    mod = Before.clone()
    assert_same_ir(DropDoubleNegation(native_target())(mod), After)
    tvm.ir.assert_structural_equal(mod, Before)


def test_golden_equal_expressions_are_merged():
    @I.ir_module
    class Twice:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")):
            with R.dataflow():
                lv = R.negative(x)
                lv1 = R.negative(x)
                lv2 = R.add(lv, lv1)
                R.output(lv2)
            return lv2

    @I.ir_module
    class Once:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")):
            with R.dataflow():
                lv = R.negative(x)
                lv2 = R.add(lv, lv)
                R.output(lv2)
            return lv2

    tvm.ir.assert_structural_equal(merge_equal(Twice), Once)


def test_names_are_those_of_layers(module_of):
    """Front ends name results after layers; TVM's own names, lv1 and gv, say nothing."""

    @I.ir_module
    class Named:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")):
            with R.dataflow():
                lv1 = R.negative(x)
                features_0 = R.negative(lv1)
                gv = R.negative(features_0)
                R.output(gv)
            return gv

    names = []
    rewrite_calls(Named, lambda _call, graph: names.append(graph.name))
    assert names == ["", "features_0", ""]
