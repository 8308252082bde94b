"""Bindings and results that read a variable, with dataflow blocks and without."""

import numpy as np
from tvm.script import ir as I
from tvm.script import relax as R

import tvm_bitenc as be
from tvm_bitenc import op as bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.transform.analysis.readers import readers_of

ACT = Encoding.unsigned(2, 2.0)
WEIGHT = np.random.default_rng(0).integers(0, 4, (2, 3, 1, 1), dtype=np.uint8)


@I.ir_module
class Dataflow:
    @R.function
    def main(x: R.Tensor((1, 3, 4, 4), "float32")):
        with R.dataflow():
            codes = bitenc.encode(x, ACT)
            acc = bitenc.branch_conv2d(codes, ACT, WEIGHT, ACT)
            y = R.astype(acc, "float32")
            twice = R.add(y, y)
            out = bitenc.encode(twice, ACT)
            R.output(acc, out)
        return acc, out


@I.ir_module
class Plain:
    @R.function
    def main(x: R.Tensor((1, 3, 4, 4), "float32")):
        codes = bitenc.encode(x, ACT)
        acc = bitenc.branch_conv2d(codes, ACT, WEIGHT, ACT)
        y = R.astype(acc, "float32")
        twice = R.add(y, y)
        out = bitenc.encode(twice, ACT)
        return acc, out


def names_of_readers(mod):
    return {
        var.name: [reader.name for reader in readers]
        for var, readers in readers_of(mod["main"]).items()
    }


def test_a_result_is_read_and_one_binding_counts_once():
    found = names_of_readers(Dataflow)
    assert found == {
        "x": ["codes"],
        "codes": ["acc"],
        "acc": ["y", "result"],
        "y": ["twice"],
        "twice": ["out"],
        "out": ["result"],
    }
    assert names_of_readers(Plain) == found


def test_a_module_without_dataflow_blocks_is_compiled_to_the_same(same):
    x = np.random.default_rng(1).normal(size=(1, 3, 4, 4)).astype(np.float32) * 4
    pairs = zip(*(be.build(mod, threads=1)(x) for mod in (Plain, Dataflow)))
    assert all(same(*pair) for pair in pairs)
