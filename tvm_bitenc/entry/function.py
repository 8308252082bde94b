"""A plan as a function of TIR, and kernels that take plain pointers.

Before::

    Step("encode", (Tensor("input0", ...), Tensor("arena", ...)))

    @T.prim_func(private=True)
    def encode(x: T.Buffer((1, 3), "float32"), codes: T.Buffer((1, 3), "uint8")): ...

After::

    @T.prim_func(private=True)
    def encode(x: T.handle("float32"), codes: T.handle("uint8"), workspace: T.handle("uint8")): ...

    @T.prim_func
    def net_steps(input0, output0, weights, arena, batch: T.int64, first: T.int32, last: T.int32):
        if first <= 0 and 0 < last:
            encode(T.address_of(input0[0]), T.address_of(arena[0]), T.address_of(arena[64]))
        ...

It runs the steps from `first` to before `last`, so one step can be timed alone. Kernels have no
name outside of the code, so LLVM inlines what is called once and drops what isn't called.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.ir import PointerType, PrimType

from ..errors import UnsupportedError
from ..runtime.size import Size
from .plan import ARENA, WEIGHTS, Plan, Step, Tensor
from .symbolic import as_expression

WORKSPACE = "workspace"  # A kernel's own memory, behind the tensors of the arena.
_BATCH = Size(0, 1)
_C_FUNCTION = 1  # `CallingConv` of functions whose arguments are those of C already.


def entry_module(
    kernels: tvm.IRModule, plan: Plan, name: str, for_tvm: bool = False
) -> tvm.IRModule:
    """Return the kernels of a module as private functions, and the function that calls them.

    Parameters
    ----------
    kernels : tvm.IRModule
    plan : Plan
        Of its `main`.
    name : str
        Of the function ``NAME_steps``, in C.
    for_tvm : bool
        Whether there is ``NAME_call`` as well, which TVM's runtime can call.

    Raises
    ------
    UnsupportedError
        If a kernel has a size that none of its arguments has.
    """
    called = {step.kernel for step in plan.steps}
    found: dict[str, tuple[tvm.ir.GlobalVar, _Kernel]] = {}
    for var, function in kernels.functions_items():
        kernel = var.name_hint
        if isinstance(function, tirx.PrimFunc) and kernel in called:
            found[kernel] = tvm.ir.GlobalVar(kernel), _plain(function, kernel)
    steps = tvm.ir.GlobalVar(f"{name}_steps")
    entry = _entry(plan, found).with_attr("global_symbol", steps.name_hint)
    functions = {var: kernel.function for var, kernel in found.values()}
    functions[steps] = entry.with_attr("tirx.noalias", True).with_attr("calling_conv", _C_FUNCTION)
    if for_tvm:
        functions[tvm.ir.GlobalVar(f"{name}_call")] = _packed(entry, steps, f"{name}_call")
    return tvm.IRModule(functions)


def _packed(entry: tirx.PrimFunc, steps: tvm.ir.GlobalVar, name: str) -> tirx.PrimFunc:
    """Return the same function with TVM's calling convention; it takes addresses as integers."""
    params, arguments = [], []
    for param in entry.params:
        is_pointer = isinstance(param.ty, PointerType)
        params.append(tirx.Var(param.name, "int64" if is_pointer else str(param.ty)))
        address = tvm.ir.Call("tirx.reinterpret", [params[-1]], ret_ty=param.ty)
        arguments.append(address if is_pointer else params[-1])
    call = tirx.Evaluate(tvm.ir.Call(steps, arguments, ret_ty="void"))
    return tirx.PrimFunc(params, call).with_attr("global_symbol", name)


@dataclass(frozen=True)
class _Kernel:
    """A kernel of pointers; for each size that it takes besides, an argument and axis with it."""

    function: tirx.PrimFunc
    sizes: tuple[tuple[int, int], ...]


def _plain(function: tirx.PrimFunc, name: str) -> _Kernel:
    buffers = [param for param in function.params if isinstance(param.ty, tirx.BufferType)]
    numbers = [param for param in function.params if not isinstance(param.ty, tirx.BufferType)]
    if any(len(param.ty.strides) for param in buffers):
        raise UnsupportedError(
            f"kernel {name!r}", "takes tensors with strides", "Let its tensors be compact"
        )
    symbols = [s for s in _symbols(buffers) if not any(s.same_as(number) for number in numbers)]
    places = {symbol: _place_of(symbol, buffers, name) for symbol in symbols}
    pointers = [tirx.Var(param.name, PointerType(param.ty.dtype)) for param in buffers]
    body: tirx.Stmt = function.body
    # LLVM holds such pointers for aligned as their elements are, so the caller's may lie anywhere.
    declared = [tirx.DeclBuffer(param, data=pointer) for param, pointer in zip(buffers, pointers)]
    body = tirx.SeqStmt([*_offsets(buffers), *declared, body])
    workspace = tirx.Var(WORKSPACE, PointerType(PrimType("uint8")))
    # LLVM's code of a parallel loop returns an error code.
    body = tirx.SeqStmt([body, tirx.Return(tirx.const(0, "int32"))])
    params = [*pointers, *numbers, *symbols, workspace]
    plain = tirx.PrimFunc(params, body, PrimType("int32"), attrs=function.attrs)
    plain = plain.without_attr("global_symbol").with_attr("tirx.noalias", True)
    return _Kernel(plain, tuple(places[symbol] for symbol in symbols))


def _offsets(params: Sequence[tirx.Var]) -> list[tirx.Stmt]:
    """Where kernels let a tensor begin anywhere in its memory, it begins at the front."""
    offsets = [param.ty.elem_offset for param in params]
    return [tirx.Bind(o, tirx.const(0, str(o.ty))) for o in offsets if isinstance(o, tirx.Var)]


def _symbols(params: Sequence[tirx.Var]) -> list[tirx.Var]:
    """Variables in the shapes of parameters, each once."""
    found: list[tirx.Var] = []
    for param in params:
        for size in param.ty.shape:
            for symbol in tirx.analysis.undefined_vars(size):
                if not any(symbol.same_as(other) for other in found):
                    found.append(symbol)
    return found


def _place_of(symbol: tirx.Var, params: Sequence[tirx.Var], kernel: str) -> tuple[int, int]:
    for i, param in enumerate(params):
        for axis, size in enumerate(param.ty.shape):
            if symbol.same_as(size):
                return i, axis
    raise UnsupportedError(
        f"kernel {kernel!r}",
        f"has a size {symbol.name} that none of its tensors has",
        "Import the model with a fixed batch",
    )


class _Bases:
    """The parameters of the entry, and places in them."""

    def __init__(self, plan: Plan):
        tensors = [*plan.inputs, *plan.outputs]
        names = [*(tensor.base for tensor in tensors), WEIGHTS, ARENA]
        self.pointers = {n: tirx.Var(n, PointerType(PrimType("uint8"))) for n in names}
        # Their extents aren't checked, and a batch has no largest: any that fits 64 bits will do.
        self.memory = {n: tirx.decl_buffer((1 << 40,), "uint8", name=f"{n}_bytes") for n in names}
        self.batch = tirx.Var("batch", "int64")
        self.first, self.last = tirx.Var("first", "int32"), tirx.Var("last", "int32")
        self.arena_end = plan.arena

    @property
    def params(self) -> list[tirx.Var]:
        return [*self.pointers.values(), self.batch, self.first, self.last]

    def declarations(self) -> list[tirx.Stmt]:
        return [tirx.DeclBuffer(self.memory[n], data=p) for n, p in self.pointers.items()]

    def address(self, base: str, offset: Size) -> tirx.Expr:
        return tirx.address_of(self.memory[base][as_expression(offset, self.batch)])

    def tensor(self, tensor: Tensor) -> tirx.Expr:
        return self.address(tensor.base, tensor.offset)


def _entry(plan: Plan, kernels: dict[str, tuple[tvm.ir.GlobalVar, _Kernel]]) -> tirx.PrimFunc:
    bases = _Bases(plan)
    body: list[tirx.Stmt] = bases.declarations()
    for i, step in enumerate(plan.steps):
        call = _copy(bases, step) if step.kernel is None else _call(bases, step, kernels)
        asked = tirx.all(bases.first <= i, bases.last > i)
        body.append(tirx.IfThenElse(asked, tirx.Evaluate(call), None))
    return tirx.PrimFunc(bases.params, tirx.SeqStmt(body))


def _copy(bases: _Bases, step: Step) -> tirx.Expr:
    source, target = step.tensors
    size = as_expression(source.nbytes, bases.batch)
    return tirx.call_extern("handle", "memcpy", bases.tensor(target), bases.tensor(source), size)


def _call(
    bases: _Bases, step: Step, kernels: dict[str, tuple[tvm.ir.GlobalVar, _Kernel]]
) -> tirx.Expr:
    variable, kernel = kernels[str(step.kernel)]
    pointers = [bases.tensor(tensor) for tensor in step.tensors]
    sizes = [*step.numbers, *(step.tensors[i].shape[axis] for i, axis in kernel.sizes)]
    if any(size != _BATCH for size in sizes):  # A kernel's workspace is planned for the batch.
        raise UnsupportedError(
            f"kernel {step.kernel!r}",
            f"is called with sizes {sizes} of the batch",
            "Import the model with a fixed batch",
        )
    dtypes = [str(param.ty) for param in kernel.function.params[len(pointers) : -1]]
    numbers = [as_expression(_BATCH, bases.batch, dtype) for dtype in dtypes]
    workspace = bases.address(ARENA, bases.arena_end)
    return tvm.ir.Call(variable, [*pointers, *numbers, workspace], ret_ty="int32")


def kernel_functions(module: tvm.IRModule) -> Iterable[tuple[tvm.ir.GlobalVar, tirx.PrimFunc]]:
    """Kernels of a module that `entry_module` made: those with a workspace."""
    for var, function in module.functions_items():
        if function.params and function.params[-1].name == WORKSPACE:
            yield var, function
