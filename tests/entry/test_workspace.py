"""Memory of kernels: placed beforehand, one part for each iteration of a parallel loop."""

import tvm
from tvm import tirx
from tvm.ir import PointerType, PrimType

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
    assert size == Size(8 * 1024) and "1024" in text_of(module)


def test_a_buffer_that_grows_with_the_batch():
    batch = tirx.Var("batch", "int64")
    _, size = with_workspaces(module_with(allocated(batch * 24), batch))
    assert size == Size(0, 128)
