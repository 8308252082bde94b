"""Output channels with the same weights share sums; whatever they do with them is their own."""

import dataclasses

import numpy as np
import pytest
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op.packed import conv_layer_of, packed_conv2d_op
from tvm_bitenc.op.registration import is_call_to
from tvm_bitenc.records.workload import parse_workload, workload_of
from tvm_bitenc.target import load_target
from tvm_bitenc.transform import default_pipeline
from tvm_bitenc.transform.share_channels import ShareChannels
from tvm_bitenc.transform.visit import visit_calls

NATIVE = load_target("native")
rng = np.random.default_rng(0)
TILE = rng.integers(0, 2, (8, 5, 3, 3), np.uint8)
OFFSET = np.arange(8, dtype=np.int32)
WHOLE, WHOLE_OFFSET = relax.const(np.tile(TILE, (3, 1, 1, 1))), relax.const(np.tile(OFFSET, 3))
ONCE, ONCE_OFFSET = relax.const(TILE), relax.const(OFFSET)
LIMITS = relax.const(rng.integers(-9, 9, (1, 24)), "int32")
UP = relax.const(np.ones(24), "int32")
PLAIN = dict(act_coefficients=[1], weight_coefficients=[1], act_offset=0, layer="conv")
PLAIN |= dict(strategy="", steps=[])


def test_golden(assert_same_ir):
    @I.ir_module
    class Before:
        @R.function
        def main(planes: R.Tensor((1, 4, 4, 1, 1), "uint64")):
            with R.dataflow():
                y = T.Call(
                    "bitenc.packed_conv2d", [planes, WHOLE, WHOLE_OFFSET, LIMITS, UP], attrs=PLAIN
                )
                R.output(y)
            return y

    @I.ir_module
    class After:
        @R.function
        def main(planes: R.Tensor((1, 4, 4, 1, 1), "uint64")):
            with R.dataflow():
                y = T.Call(
                    "bitenc.packed_conv2d",
                    [planes, ONCE, ONCE_OFFSET, LIMITS, UP],
                    attrs=dict(PLAIN, copies=3),
                )
                R.output(y)
            return y

    assert_same_ir(ShareChannels(NATIVE)(Before), After)
    assert_same_ir(ShareChannels(NATIVE)(After), After)


def test_weights_of_other_zero_points_are_others(assert_same_ir):
    offset = relax.const(np.arange(24, dtype=np.int32))

    @I.ir_module
    class Module:
        @R.function
        def main(planes: R.Tensor((1, 4, 4, 1, 1), "uint64")):
            with R.dataflow():
                y = T.Call("bitenc.packed_conv2d", [planes, WHOLE, offset], attrs=PLAIN)
                R.output(y)
            return y

    assert_same_ir(ShareChannels(NATIVE)(Module), Module)


def convolutions(mod):
    found = []

    def note(call, _graph):
        if is_call_to(call, packed_conv2d_op):
            found.append(call)

    visit_calls(mod, note)
    return found


W, A = Encoding.symmetric(2, 2.0), Encoding.unsigned(2, 2.0)
EIGHT = tuple(range(8))
# Which channel's weights each channel has, and how many share them.
REPEATED = {
    "in order": (EIGHT * 3, 3),
    "all the same": ((0,) * 24, 3),
    "four and four": ((0, 1, 2, 3) * 6, 3),
    "twelve, of which eights are none": ((*EIGHT, 8, 9, 10, 11) * 2, 1),
    "but for the last": ((*EIGHT, *EIGHT, *EIGHT[:-1], 8), 1),
    "side by side": (tuple(i // 3 for i in range(24)), 1),
    "a part left over": ((*range(16), *EIGHT), 1),
    "in groups": (EIGHT * 3, 1),
}


@pytest.mark.parametrize("name", REPEATED)
def test_what_repeats(name, random_layer, module_of, outputs_of, same):
    """No more than needed is kept, and numbers stay what they were."""
    order, copies = REPEATED[name]
    window = dict(groups=2) if name == "in groups" else {}
    layer = random_layer(0, W, A, channels=8, out_channels=24, **window)
    layer = dataclasses.replace(layer, weight_codes=layer.weight_codes[list(order)])
    mod = module_of([layer.act_codes.shape], layer.emit)
    shared = default_pipeline(load_target("native")).until("bitenc.Strategy").run(mod)
    (call,) = convolutions(shared)
    found = conv_layer_of(call)
    assert (found.copies, found.out_channels) == (copies, 24)
    assert same(found.expanded.weight_codes, layer.weight_codes)
    assert same(outputs_of(mod, [layer.input])[0], layer.reference())


def test_a_record_knows_of_copies():
    @I.ir_module
    class Module:
        @R.function
        def main(planes: R.Tensor((1, 4, 4, 1, 1), "uint64")):
            with R.dataflow():
                y = T.Call(
                    "bitenc.packed_conv2d", [planes, ONCE, ONCE_OFFSET], attrs=dict(PLAIN, copies=3)
                )
                R.output(y)
            return y

    text = workload_of(convolutions(Module)[0], load_target("native"))
    assert " copies=3 " in text
    found = parse_workload(text)
    assert (str(found), found.copies, found.out_channels) == (text, 3, 24)
    with pytest.raises(ValueError, match="5 copies don't divide 24 channels"):
        parse_workload(text.replace("copies=3", "copies=5"))
