"""Memory that kernels ask for while they run: given to them beforehand.

Before::

    for i in T.parallel(8):
        rows = T.alloc_buffer((33472,), "uint8")

After::

    for i in T.parallel(8):
        rows = T.decl_buffer((33472,), "uint8", data=T.address_of(workspace[i * 33472]))

TVM keeps small buffers on the stack, and asks its runtime for the memory of larger ones, and of
those in scope "local", whatever their size: small ones become buffers of the other kind.
"""

from __future__ import annotations

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import PointerType

from ..errors import UnsupportedError
from ..runtime.size import NOTHING, Size
from .function import kernel_functions
from .symbolic import as_expression, as_size

ON_STACK = 1024  # Bytes from which on TVM takes a buffer off the stack.


def with_workspaces(module: tvm.IRModule) -> tuple[tvm.IRModule, Size]:
    """Place the large buffers of all kernels in the workspace that they are given.

    Parameters
    ----------
    module : tvm.IRModule
        As TVM's passes leave it: buffers are flat.

    Returns
    -------
    tvm.IRModule
    Size
        The most bytes that one kernel needs.

    Raises
    ------
    UnsupportedError
        If a buffer grows otherwise than with the batch.
    """
    changed, most = tvm.IRModule(module.functions), NOTHING
    for var, function in kernel_functions(module):
        workspace = _Workspace(function, var.name_hint)
        changed[var] = function.with_body(workspace.body)
        most = Size(
            max(most.fixed, workspace.size.fixed), max(most.per_sample, workspace.size.per_sample)
        )
    return changed, most


def _with_stack_buffers(body: tirx.Stmt) -> tirx.Stmt:
    """Return the same code with all buffers in the scope whose small ones lie on the stack."""
    replaced: dict[tirx.Var, tirx.Buffer] = {}

    def note(allocation: tirx.AllocBuffer) -> None:
        buffer = allocation.buffer
        if buffer.scope() != "global":
            replaced[buffer] = tirx.decl_buffer(buffer.ty.shape, buffer.ty.dtype, buffer.name)

    tvm_ffi.structural_walk(body, (tirx.AllocBuffer, note))
    if not replaced:
        return body
    return tvm_ffi.structural_map(body, (tirx.Var, lambda var: replaced.get(var, var)))


class _Workspace:
    def __init__(self, function: tirx.PrimFunc, kernel: str):
        self.kernel, self.size, self.is_used = kernel, NOTHING, False
        numbers = [p for p in function.params[:-1] if not isinstance(p.ty, PointerType)]
        self.batch = numbers[0] if numbers else None
        self.memory = tirx.decl_buffer((1 << 40,), "uint8", name="workspace_bytes")
        body = _with_stack_buffers(function.body)
        body = tvm_ffi.structural_map(body, (tirx.For, self._parallel))
        body = tvm_ffi.structural_map(body, (tirx.AllocBuffer, self._alone))
        declared = tirx.DeclBuffer(self.memory, data=function.params[-1])
        self.body = tirx.SeqStmt([declared, body]) if self.is_used else body

    def _parallel(self, loop: tirx.For) -> tirx.For:
        """Give every iteration of a parallel loop memory of its own."""
        if loop.kind != tirx.ForKind.PARALLEL:
            return loop

        def placed(allocation: tirx.AllocBuffer) -> tirx.Stmt:
            return self._placed(allocation, loop.loop_var - loop.min, loop.extent)

        body = tvm_ffi.structural_map(loop.body, (tirx.AllocBuffer, placed))
        return tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, body)

    def _alone(self, allocation: tirx.AllocBuffer) -> tirx.Stmt:
        return self._placed(allocation, tirx.const(0, "int64"), tirx.const(1, "int64"))

    def _placed(
        self, allocation: tirx.AllocBuffer, index: tirx.Expr, count: tirx.Expr
    ) -> tirx.Stmt:
        buffer = allocation.buffer
        (extent,) = buffer.ty.shape
        nbytes = self._linear(extent) * tvm.DataType(str(buffer.ty.dtype)).itemsize
        if 0 < nbytes.fixed < ON_STACK and not nbytes.per_sample:
            return allocation
        self.is_used, nbytes = True, nbytes.aligned()
        start = self._bytes(self.size)
        start = start + tirx.Cast("int64", index) * self._bytes(nbytes)
        self.size += self._linear(count * self._bytes(nbytes))
        return tirx.DeclBuffer(buffer, data=tirx.address_of(self.memory[start]))

    def _bytes(self, size: Size) -> tirx.Expr:
        return as_expression(size, self.batch)

    def _linear(self, expression: int | tirx.Expr) -> Size:
        size = as_size(expression, () if self.batch is None else (self.batch,))
        if size is None:
            raise UnsupportedError(
                f"kernel {self.kernel!r}",
                f"needs {expression} bytes of memory, which don't grow with the batch alone",
                "Import the model with a fixed batch",
            )
        return size
