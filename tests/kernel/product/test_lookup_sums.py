"""Sums over all slots of a vector."""

import numpy as np
import pytest
import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from tvm_bitenc.kernel.product.lookup_sums import SLOT, add_slots
from tvm_bitenc.kernel.tir import flat, load, store


@pytest.mark.parametrize("slots", [2, 4])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_slots_are_added_up(count, slots):
    width = SLOT // 2
    lanes = slots * width
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        x = T.arg("x", T.buffer((count * lanes,), "uint16"))
        y = T.arg("y", T.buffer((count * width,), "uint16"))
        source, target = flat(x, count * lanes, "uint16"), flat(y, count * width, "uint16")
        vectors = [T.Bind(load(source, i * lanes, lanes)) for i in range(count)]
        store(target, add_slots(vectors, lanes, slots), 0, count * width)
    values = np.random.default_rng(0).integers(0, 2**14, (count, slots, width), dtype=np.uint16)
    result = tvm.runtime.tensor(np.zeros(count * width, np.uint16))
    library = tvm.compile(tvm.IRModule({"main": builder.get()}), target="llvm")
    library["main"](tvm.runtime.tensor(values.reshape(-1)), result)
    assert np.array_equal(result.numpy(), values.sum(axis=1, dtype=np.uint16).reshape(-1))
