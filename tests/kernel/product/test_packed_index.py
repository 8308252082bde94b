"""Indices of four to six bits: what is stored, and what kernels unpack."""

import numpy as np
import pytest
import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from tvm_bitenc.kernel.product.packed_index import AT_ONCE, pack_index, unpack_index
from tvm_bitenc.kernel.tir import flat, load, store
from tvm_bitenc.schedule import isa_of


@pytest.mark.parametrize("vectors", [1, 8, 21])
@pytest.mark.parametrize("bits", [4, 5, 6])
def test_indices_come_back(bits, vectors, target):
    isa = isa_of(target)
    n, eights = isa.vector_bytes, -(-vectors // AT_ONCE)
    index = np.random.default_rng(bits).integers(0, 2**bits, (vectors, n), dtype=np.uint8)
    packed = pack_index(index, bits, n)
    assert packed.nbytes == eights * n * bits
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        source = T.arg("source", T.buffer(packed.shape, "uint8"))
        out = T.arg("out", T.buffer((vectors * n,), "uint8"))
        found = unpack_index(flat(source, packed.size, "uint8"), vectors, bits, isa)
        with T.serial(0, vectors) as v:
            store(out, load(found, v * n, n), v * n, n)
    mod = tvm.IRModule({"main": builder.get().with_attr("global_symbol", "main")})
    result = tvm.runtime.tensor(np.zeros(vectors * n, np.uint8))
    tvm.compile(mod, target=target.tvm_target)["main"](tvm.runtime.tensor(packed), result)
    assert np.array_equal(result.numpy(), index.reshape(-1))
