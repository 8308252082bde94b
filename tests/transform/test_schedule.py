"""Packed ops become scheduled kernels, named after op and layer."""

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.target import load_target, native_target
from tvm_bitenc.transform import default_pipeline
from tvm_bitenc.transform.schedule import OPAQUE, Schedule, kernel_of

TARGET = load_target("x86-64-v3")


def kernels(mod):
    return {
        var.name_hint: function
        for var, function in mod.functions_items()
        if isinstance(function, tirx.PrimFunc)
    }


def test_golden(assert_same_ir):
    """Weights come as the kernel has them, and its code is added to the module."""
    w = relax.const(np.random.default_rng(0).integers(0, 2, (8, 9, 3, 3)), "uint8")
    o = relax.const(np.zeros(8), "int32")
    t, d = relax.const(np.zeros((1, 8)), "int32"), relax.const(np.ones(8), "int32")
    conv = dict(act_coefficients=[1], weight_coefficients=[1], act_offset=0, layer="conv.1")
    conv |= dict(strides=[1, 1], padding=[0, 0, 0, 0], dilation=[1, 1], groups=1, steps=[])
    conv |= dict(strategy="xnor", tile=[], origin="default rule")

    @I.ir_module
    class Before:
        @R.function
        def main(planes: R.Tensor((1, 4, 4, 1, 1), "uint64")):
            with R.dataflow():
                out = T.Call("bitenc.packed_conv2d", [planes, w, o, t, d], attrs=conv)
                R.output(out)
            return out

    kernel = kernel_of(Before["main"].body.blocks[0].bindings[0].value, TARGET)
    constants = [relax.const(value, str(value.dtype)) for value in kernel.constants]

    @I.ir_module(check_well_formed=False)  # The kernel is put in below.
    class After:
        @T.prim_func(private=True)
        def packed_conv2d_conv_1_xnor():
            T.evaluate(0)

        @R.function
        def main(planes: R.Tensor((1, 4, 4, 1, 1), "uint64")):
            cls = After
            with R.dataflow():
                out = R.call_tir(
                    cls.packed_conv2d_conv_1_xnor,
                    [planes, *constants],
                    out_ty=R.Tensor((1, 2, 2, 1, 1), "uint64"),
                )
                R.output(out)
            return out

    function = kernel.function.without_attr("global_symbol")
    function = function.with_attr("op_pattern", OPAQUE).with_attr("tirx.is_scheduled", True)
    After.update_func(After.get_global_var("packed_conv2d_conv_1_xnor"), function)
    assert_same_ir(Schedule(TARGET)(Before), After)


def test_kernels_replace_every_packed_op(random_layer, layers_module, ops_of):
    layers = [
        random_layer(0, Encoding.symmetric(2), Encoding.unsigned(2), name=name, channels=channels)
        for name, channels in (("features.0", 8), ("head", 70))
    ]
    pipeline = default_pipeline(native_target(), "xnor")
    mod = pipeline.run(layers_module(layers))
    assert not [name for name in ops_of(mod) if name.startswith("bitenc.packed")]
    found = kernels(mod)
    assert {"packed_conv2d_features_0_xnor", "packed_conv2d_head_xnor"} <= set(found)
    for function in found.values():
        assert int(function.attrs["op_pattern"]) == OPAQUE
        assert bool(function.attrs["tirx.is_scheduled"])


def test_a_module_without_packed_ops_is_left_alone(module_of, assert_same_ir):
    mod = module_of([(2, 3)], lambda b, x: b.emit(relax.op.nn.relu(x)))
    assert_same_ir(Schedule(native_target())(mod), mod)


def test_passes_obey_the_pass_context(random_layer, layers_module):
    seen = []

    @tvm.ir.instrument.pass_instrument
    class Watch:
        def run_before_pass(self, _mod, info):
            seen.append(info.name)

    mod = layers_module([random_layer(0, Encoding.symmetric(1), Encoding.symmetric(1))])
    pipeline = default_pipeline(native_target())
    with tvm.transform.PassContext(instruments=[Watch()]):
        pipeline.run(mod)
    assert [name for name in seen if name in pipeline.names] == pipeline.names
