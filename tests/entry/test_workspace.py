"""Memory of kernels: placed beforehand, one part for each iteration of a parallel loop."""

import numpy as np
import pytest
import torch
import tvm
from tvm import tirx
from tvm.ir import PointerType, PrimType

import tvm_bitenc as be
from tvm_bitenc.entry.workspace import with_workspaces
from tvm_bitenc.runtime.size import NOTHING, Size


def module_with(body: list[tirx.Stmt], *symbols: tirx.Var) -> tvm.IRModule:
    workspace = tirx.Var("workspace", PointerType(PrimType("uint8")))
    end = tirx.Evaluate(tirx.const(0, "int32"))  # A sequence has two statements at least.
    function = tirx.PrimFunc([*symbols, workspace], tirx.SeqStmt([*body, end]))
    return tvm.IRModule({"kernel": function})


def allocated(elements, dtype: str = "float32") -> list[tirx.Stmt]:
    buffer = tirx.decl_buffer((elements,), dtype, name="rows")
    zero = tirx.const(0, dtype)
    return [tirx.AllocBuffer(buffer), tirx.BufferStore(buffer, zero, [tirx.const(0, "int32")])]


def loop(extent, kind: tirx.ForKind, body: list[tirx.Stmt]) -> tirx.Stmt:
    return tirx.For(tirx.Var("i", "int32"), 0, extent, kind, tirx.SeqStmt(body))


def text_of(module: tvm.IRModule) -> str:
    return module["kernel"].script(show_meta=False)


def test_small_buffers_stay_on_the_stack():
    module, size = with_workspaces(module_with(allocated(255)))
    assert size == NOTHING and "alloc_buffer" in text_of(module)


def test_large_ones_lie_one_behind_another():
    module, size = with_workspaces(module_with([*allocated(300), *allocated(257)]))
    assert size == Size(1216 + 1088) and "alloc_buffer" not in text_of(module)


def test_a_loop_uses_one_again_and_a_parallel_loop_has_many():
    serial = module_with([loop(8, tirx.ForKind.SERIAL, allocated(256))])
    assert with_workspaces(serial)[1] == Size(1024)
    parallel = module_with([loop(8, tirx.ForKind.PARALLEL, allocated(256))])
    module, size = with_workspaces(parallel)
    assert size == Size(8 * 1024) and 'T.Cast("int64", i) * T.int64(1024)' in text_of(module)


def test_a_buffer_that_grows_with_the_batch():
    batch = tirx.Var("batch", "int64")
    _, size = with_workspaces(module_with(allocated(batch * 24), batch))
    assert size == Size(0, 128)


def test_buffers_of_any_scope_lie_on_the_stack():
    buffer = tirx.decl_buffer((2,), "int64", name="low", scope="local")
    zero = tirx.const(0, "int64")
    body = [tirx.AllocBuffer(buffer), tirx.BufferStore(buffer, zero, [tirx.const(0, "int32")])]
    module, size = with_workspaces(module_with(body))
    text = text_of(module)
    assert size == NOTHING and "alloc_buffer" in text and "local" not in text


@pytest.mark.sweep(2)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape, count", [((5,), 4), ((), 3), ((3, 2), 1), ((4,), 0)])
def test_a_search_is_torchs(shape, count, threads):
    """TVM's kernel of it keeps two numbers in that scope."""

    class Search(torch.nn.Module):
        def forward(self, x, edges):
            return torch.bucketize(x, edges)

    x, edges = torch.randn(shape), torch.sort(torch.randn(count))[0]
    lib = be.build(be.from_torch(Search().eval(), (x, edges)), threads=threads)
    assert np.array_equal(lib(x, edges), torch.bucketize(x, edges).numpy())
    assert lib.report().notes == []
