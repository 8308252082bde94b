"""Packed ops become scheduled kernels, named after op and layer."""

import tvm
from tvm import relax, tirx

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.target import native_target
from tvm_bitenc.transform import default_pipeline
from tvm_bitenc.transform.schedule import OPAQUE, Schedule


def kernels(mod):
    return {
        var.name_hint: function
        for var, function in mod.functions_items()
        if isinstance(function, tirx.PrimFunc)
    }


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
