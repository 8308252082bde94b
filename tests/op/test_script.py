"""Ops as TVMScript: what is printed can be parsed, and `op`'s functions stand in it as they are."""

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_bitenc import op as bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.levels import encoding_of_levels
from tvm_bitenc.op.packed_channels import bytes_concat, packed_concat, packed_slice
from tvm_bitenc.target import load_target
from tvm_bitenc.transform import default_pipeline

rng = np.random.default_rng(0)
ACT, WEIGHT = Encoding.unsigned(2, 0.3), Encoding(2, [0.5, 1.0, 2.0], [0.0, 1.5, 2.0])
UNEVEN = encoding_of_levels([0, 3, 7, 12], [-1e-45, 0.1, 3e8], 0.3, 1.5)
CODES = rng.integers(0, 4, (3, 3, 1, 1), dtype=np.uint8)
LIMITS, SIGNS = np.sort(rng.integers(-9, 9, (3, 3)), axis=0), np.array([1, -1, 1])
FACTOR, TERM = (relax.const(rng.normal(size=(1, 3, 1, 1)).astype(np.float32)) for _ in range(2))
POOL = dict(pool_size=[2, 2], strides=[2, 2], padding=[0] * 4, dilation=[1, 1], out_size=[2, 2])
CONV = dict(act_coefficients=[1, 2], weight_coefficients=[1, 2], act_offset=0, layer="conv")
CONV |= dict(strides=[1, 1], padding=[0] * 4, dilation=[1, 1], groups=1, strategy="", steps=[])
W, OFFSET = relax.const(CODES, "uint8"), relax.const(np.zeros(3), "int32")
T_CONST, D_CONST = relax.const(LIMITS, "int32"), relax.const(SIGNS, "int32")
TABLE = np.minimum(np.add.outer(np.arange(4), np.arange(4)), 3)


@I.ir_module
class EveryOpOfCodes:
    @R.function
    def main(x: R.Tensor((2, 3, 4, 4), "float32")):
        with R.dataflow():
            q = bitenc.quantize(x, ACT, layer='the "first" layer\'s')
            y = bitenc.multiply_add(q, FACTOR, TERM)
            codes = bitenc.encode(y, WEIGHT, axis=1)
            acc = bitenc.branch_conv2d(codes, ACT, CODES, WEIGHT, padding=(0, 1, 1, 0))
            codes1 = bitenc.threshold(acc, LIMITS, SIGNS)
            both = bitenc.interleave([codes1, codes1], (2, 1), (8, 4))
            halves = R.split(both, 2, axis=2)
            sums = bitenc.lookup([halves[0], halves[1]], TABLE, bits=2)
            levels = bitenc.decode(sums, ACT)
            uneven = bitenc.quantize(levels, UNEVEN)
            counts = bitenc.reached(uneven, LIMITS, channel_axis=1)
            R.output(counts)
        return counts


@I.ir_module
class EveryOpOfMatrices:
    @R.function
    def main(a: R.Tensor((2, 4, 5), "uint8"), b: R.Tensor((2, 5, 3), "uint8")):
        with R.dataflow():
            acc = bitenc.branch_matmul(a, ACT, b, ACT, layer="scores")
            codes = bitenc.threshold(acc, LIMITS, SIGNS, channel_axis=2)
            rows = R.reshape(codes, (8, 3))
            out = bitenc.branch_dense(rows, ACT, CODES[:, :, 0, 0], ACT)
            R.output(out)
        return out


@I.ir_module
class EveryOpOfPlanes:
    @R.function
    def main(x: R.Tensor((1, 4, 4, 3), "float32")):
        with R.dataflow():
            codes = bitenc.encode(x, ACT)
            planes = bitenc.pack(codes, 2)
            other = T.Call(
                "bitenc.packed_encode", [x, R.const([0.5, 1.0, 2.0], "float32")], attrs={}
            )
            wide = packed_concat([planes, other], [3, 3])
            part = packed_slice(wide, 1, 4)
            total = T.Call(
                "bitenc.packed_lookup",
                [planes, part, R.const(TABLE, "uint8")],
                attrs={"bits": 2, "channels": 3},
            )
            pooled = T.Call("bitenc.packed_max_pool2d", [total], attrs=POOL)
            acc = T.Call("bitenc.packed_conv2d", [pooled, W, OFFSET], attrs=CONV)
            planes1 = T.Call("bitenc.packed_threshold", [acc, T_CONST, D_CONST], attrs={})
            out = bytes_concat([bitenc.unpack(planes1, 3), codes])
            R.output(out)
        return out


EVERY_OP = [EveryOpOfCodes, EveryOpOfMatrices, EveryOpOfPlanes]


def parsed_back(mod):
    return tvm.script.from_source(mod.script(show_meta=True))


def test_every_op_is_here(ops_of):
    registered = {name for name in tvm.ir.Op.list_op_names() if name.startswith("bitenc.")}
    assert registered == {name for mod in EVERY_OP for name in ops_of(mod) if "bitenc" in name}


@pytest.mark.parametrize("mod", EVERY_OP)
def test_what_is_printed_is_parsed_back(mod):
    tvm.ir.assert_structural_equal(parsed_back(mod), mod)


def test_every_pass_leaves_what_can_be_parsed_back(random_layer, layers_module):
    """Thresholds, float steps, strategies and functions for the accelerator among it."""
    stem = random_layer(0, WEIGHT.symmetric(2, 2.0), ACT, channels=3, name="stem")
    layers = layers_module([stem, random_layer(1, Encoding.ternary(), ACT, dense=True)])
    for target in (load_target("x86-64-v3"), load_target("vta")):

        def check(name, mod):
            tvm.ir.assert_structural_equal(parsed_back(mod), mod)

        default_pipeline(target).until("bitenc.Schedule").run(layers, after=check)


def test_a_call_is_written_by_hand_as_it_is_printed():
    """Types are inferred; scales and the like are constants."""

    @I.ir_module
    class Function:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")):
            codes = bitenc.encode(x, ACT, layer="fc")
            return codes

    @I.ir_module
    class Call:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")):
            codes = T.Call(
                "bitenc.encode",
                [x, R.const(0.3, "float32"), R.const(0.0, "float32")],
                attrs={
                    "bits": 2,
                    "coefficients": [1, 2],
                    "rounding": "half_even",
                    "max_code": 3,
                    "late_zero_point": 0,
                    "axis": -1,
                    "layer": "fc",
                },
            )
            return codes

    tvm.ir.assert_structural_equal(Function, Call)
