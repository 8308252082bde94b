"""Float ops are fused into functions, none of them with more ops than LLVM compiles fast."""

import pytest
import tvm
from tvm import relax, tirx

from tvm_bitenc.transform import fuse_ops
from tvm_bitenc.transform.fuse_ops import MAX_OPS, FuseOps


def sizes_of_functions(mod):
    """How many ops each function has that was fused, in the order of the calls."""
    values = [binding.value for block in mod["main"].body.blocks for binding in block.bindings]
    called = [value.op for value in values if isinstance(value, relax.Call)]
    return [sum(len(block.bindings) for block in mod[var].body.blocks) for var in called]


def chain(length, module_of):
    def body(builder, x):
        for _ in range(length):
            x = builder.emit(relax.op.negative(x))
        return x

    passes = [relax.transform.LegalizeOps(), relax.transform.AnnotateTIROpPattern()]
    return tvm.transform.Sequential(passes)(module_of([(4,)], body))


def test_a_long_chain_becomes_functions_of_the_largest_size(module_of, monkeypatch):
    monkeypatch.setattr(fuse_ops, "MAX_OPS", 3)
    assert sorted(sizes_of_functions(FuseOps()(chain(8, module_of)))) == [2, 3, 3]


def test_short_chains_become_one(module_of):
    fused = FuseOps()(chain(MAX_OPS, module_of))
    assert sizes_of_functions(fused) == [MAX_OPS]
    kernels = relax.transform.FuseTIR()(fused)
    assert sum(isinstance(f, tirx.PrimFunc) for f in kernels.functions.values()) == 1


@pytest.mark.parametrize("depth", [2, 4])
def test_the_pass_context_says_otherwise(depth, module_of):
    mod = chain(4, module_of)
    with tvm.transform.PassContext(config={"relax.FuseOps.max_depth": depth}):
        assert sizes_of_functions(FuseOps()(mod)) == [depth] * (4 // depth)
