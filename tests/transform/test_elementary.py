"""Which calls become arithmetic; what that computes is in tests/te."""

import tvm
from tvm.script import ir as I
from tvm.script import tirx as T

from tvm_bitenc.transform.elementary import FUNCTIONS, Elementary


@I.ir_module
class Calls:
    @T.prim_func(s_tir=True)
    def main(x: T.Buffer((8,), "float32"), z: T.Buffer((8,), "float64"), y: T.Buffer((8,))):
        for i in range(8):
            with T.sblock("floats"):
                v = T.axis.spatial(8, i)
                y[v] = T.exp(T.tanh(x[v])) + T.erf(x[v]) + T.sigmoid(x[v])
        for i in range(8):
            with T.sblock("doubles"):
                v = T.axis.spatial(8, i)
                z[v] = T.exp(z[v])


def calls(function):
    return {name for name in FUNCTIONS if f"T.{name.partition('.')[2]}(" in str(function)}


def test_all_of_float32_are_written_out_wherever_they_stand():
    before = Calls.clone()
    found = Elementary()(Calls)
    assert calls(Calls["main"]) == set(FUNCTIONS) and calls(found["main"]) == {"tirx.exp"}
    assert "z[v] = T.exp(z[v])" in str(found["main"])
    tvm.ir.assert_structural_equal(Calls, before)


def test_what_a_rule_scheduled_stays():
    scheduled = tvm.IRModule({"main": Calls["main"].with_attr("tirx.is_scheduled", True)})
    tvm.ir.assert_structural_equal(Elementary()(scheduled), scheduled)
