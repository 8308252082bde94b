"""What `main` does: tensors at fixed places, and kernels called in order.

Before::

    alloc = R.builtin.alloc_tensor(R.shape([1, 8, 8, 1]), R.dtype("uint8"), 0, "global")
    encode(x, R.const(31.875), alloc)

After::

    Tensor("input0", ...), Tensor("weights", ...), Tensor("arena", ...)
    Step("encode", (0, 1, 2))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import tvm
from tvm import relax, tirx

from ..errors import UnsupportedError
from ..runtime.size import ALIGNMENT, NOTHING, Size, linear
from .arena import Block, place
from .symbolic import as_size

ARENA, WEIGHTS = "arena", "weights"


@dataclass(frozen=True)
class Tensor:
    """A tensor at `offset` bytes from a base: the arena, the weights, an input or an output.

    Parameters
    ----------
    base : str
    offset, nbytes : Size
    dtype : str
    shape : tuple of Size
    """

    base: str
    offset: Size
    dtype: str
    shape: tuple[Size, ...]
    nbytes: Size


@dataclass(frozen=True)
class Step:
    """A call of `kernel` with tensors; without a kernel, a copy from the first to the second.

    Parameters
    ----------
    kernel : str or None
    tensors : tuple of Tensor
    numbers : tuple of Size
        Sizes that it takes besides.
    """

    kernel: str | None
    tensors: tuple[Tensor, ...]
    numbers: tuple[Size, ...] = ()


@dataclass
class Plan:
    """All that a run does.

    Parameters
    ----------
    inputs, outputs : list of Tensor
    steps : list of Step
    weights : bytes
        All constants, each aligned.
    arena : Size
    """

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    weights: bytes = b""
    arena: Size = NOTHING


@dataclass
class _Storage:
    """Memory of an input, a constant or a tensor that a step writes."""

    nbytes: Size
    base: str = ARENA
    offset: Size = NOTHING


@dataclass(frozen=True)
class _Value:
    """A tensor whose storage may have no place yet."""

    storage: _Storage
    dtype: str
    shape: tuple[Size, ...]
    nbytes: Size

    def placed(self) -> Tensor:
        return Tensor(self.storage.base, self.storage.offset, self.dtype, self.shape, self.nbytes)


def make_plan(kernels: tvm.IRModule) -> Plan:
    """Read the calls of `main`, and give every tensor its place.

    Parameters
    ----------
    kernels : tvm.IRModule
        As `transform.pipeline.kernel_calls` returns it.

    Raises
    ------
    UnsupportedError
        For sizes that only numbers tell, and for calls of anything but kernels.
    """
    return _Reader(kernels["main"]).plan()


class _Reader:
    def __init__(self, main: relax.Function):
        self.main = main
        self.sizes = _Sizes(main)
        self.values: dict = {}
        self.calls: list[tuple[str, list[_Value], list[Size]]] = []
        self.weights = bytearray()
        self.places: dict[bytes, int] = {}

    def plan(self) -> Plan:
        inputs = [self._input(i, param) for i, param in enumerate(self.main.params)]
        for block in self.main.body.blocks:
            for binding in block.bindings:
                self._bind(binding)
        results = self._value(self.main.body.body)
        results = results if isinstance(results, list) else [results]
        copies = self._place_outputs(results)
        plan = Plan([value.placed() for value in inputs])
        plan.outputs = [
            Tensor(f"output{i}", Size(0), value.dtype, value.shape, value.nbytes)
            for i, value in enumerate(results)
        ]
        plan.arena = self._place_arena([results[i] for i in copies])
        for kernel, arguments, numbers in self.calls:
            placed = tuple(value.placed() for value in arguments)
            plan.steps.append(Step(kernel, placed, tuple(numbers)))
        for i in copies:
            plan.steps.append(Step(None, (results[i].placed(), plan.outputs[i])))
        plan.weights = bytes(self.weights)
        return plan

    def _input(self, index: int, param: relax.Var) -> _Value:
        if not isinstance(param.ty, relax.TensorType):
            raise UnsupportedError(
                f"input {param.name!r}", "isn't a tensor", "Bind it into the module"
            )
        value = self._tensor_value(param.ty.shape, str(param.ty.dtype), f"input {param.name!r}")
        value.storage.base = f"input{index}"
        self.values[param] = value
        return value

    def _tensor_value(self, shape: relax.Expr, dtype: str, what: str) -> _Value:
        sizes, count = self.sizes.of(shape, what)
        nbytes = count * tvm.DataType(dtype).itemsize
        return _Value(_Storage(nbytes), dtype, sizes, nbytes)

    def _bind(self, binding: relax.Binding) -> None:
        value = binding.value
        if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.GlobalVar):
            kernel = value.op.name_hint
            is_number = [str(argument.ty).startswith("int") for argument in value.args]
            tensors = [self._argument(kernel, a) for a, n in zip(value.args, is_number) if not n]
            what = f"an argument of kernel {kernel!r}"
            numbers = [self.sizes.one(a, what) for a, n in zip(value.args, is_number) if n]
            self.calls.append((kernel, tensors, numbers))
        else:
            self.values[binding.var] = self._value(value)

    def _argument(self, kernel: str, argument: relax.Expr) -> _Value:
        value = self._value(argument)
        if not isinstance(value, _Value):
            raise UnsupportedError(
                f"kernel {kernel!r}", "takes an argument that isn't a tensor", "Fix all shapes"
            )
        return value

    def _value(self, expr: relax.Expr):
        if isinstance(expr, tvm.ir.Var):
            return self.values[expr]
        if isinstance(expr, tvm.ir.GenericConst):
            return self._constant(expr)
        if isinstance(expr, relax.Tuple):
            return [self._value(item) for item in expr.fields]
        if isinstance(expr, relax.TupleGetItem):
            return self._value(expr.tuple_value)[expr.index]
        name = expr.op.name if isinstance(expr, relax.Call) and hasattr(expr.op, "name") else ""
        if name == "relax.builtin.alloc_tensor":
            return self._tensor_value(expr.args[0], str(expr.args[1].value), "a tensor")
        if name == "relax.reshape":
            return self._view(expr)
        raise UnsupportedError(
            name or type(expr).__name__,
            "needs TVM's runtime when the model runs",
            "Leave this part out of the model",
        )

    def _view(self, call: relax.Call) -> _Value:
        value = self._value(call.args[0])
        shape, _ = self.sizes.of(call.ty.shape, "a reshape")
        return _Value(value.storage, value.dtype, shape, value.nbytes)

    def _constant(self, constant: tvm.ir.GenericConst) -> _Value:
        array = np.asarray(constant.value.numpy(), order="C")
        content = array.tobytes()
        if content not in self.places:
            self.weights += bytes(-len(self.weights) % ALIGNMENT)
            self.places[content] = len(self.weights)
            self.weights += content
        nbytes = Size(len(content))
        storage = _Storage(nbytes, WEIGHTS, Size(self.places[content]))
        return _Value(storage, str(array.dtype), tuple(map(Size, array.shape)), nbytes)

    def _place_outputs(self, results: Sequence[_Value]) -> list[int]:
        """Let kernels write into the caller's outputs; return those that must be copied."""
        copies = []
        for i, value in enumerate(results):
            if value.storage.base == ARENA and value.storage.nbytes == value.nbytes:
                value.storage.base = f"output{i}"
            else:
                copies.append(i)
        return copies

    def _place_arena(self, copied: Sequence[_Value]) -> Size:
        """Place what steps write and read; what is copied to an output lives until the end."""
        blocks: dict[int, Block] = {}
        storages: list[tuple[_Storage, Block]] = []
        uses = [(i, value) for i, (_, values, _) in enumerate(self.calls) for value in values]
        for i, value in [*uses, *((len(self.calls), value) for value in copied)]:
            storage = value.storage
            if storage.base == ARENA and id(storage) not in blocks:
                blocks[id(storage)] = Block(storage.nbytes, i, i)
                storages.append((storage, blocks[id(storage)]))
            elif storage.base == ARENA:
                blocks[id(storage)].last = i
        size = place(list(blocks.values()))
        for storage, block in storages:
            storage.offset = block.offset
        return size


class _Sizes:
    """Reads sizes of `main` as functions of its batch."""

    def __init__(self, main: relax.Function):
        self.symbols = {
            size
            for param in main.params
            if isinstance(param.ty, relax.TensorType) and param.ty.shape is not None
            for size in param.ty.shape
            if isinstance(size, tirx.Var)
        }

    def of(self, shape: relax.Expr | None, what: str) -> tuple[tuple[Size, ...], Size]:
        """Return every size of a shape, and how many elements it has."""
        if shape is None:
            raise _unknown(what, "of any shape")
        expressions = list(shape)
        sizes = tuple(self.one(expression, what) for expression in expressions)
        count = linear(lambda batch: math.prod(size.of(batch) for size in sizes))
        if count is None:
            raise _unknown(what, str(expressions))
        return sizes, count

    def one(self, expression: int | tirx.Expr, what: str) -> Size:
        """Return one size."""
        size = as_size(expression, self.symbols)
        if size is None:
            raise _unknown(what, str(expression))
        return size


def _unknown(what: str, size: str) -> UnsupportedError:
    return UnsupportedError(
        what,
        f"has a size that isn't known before the model runs, {size}",
        "Import the model with this size fixed",
    )
