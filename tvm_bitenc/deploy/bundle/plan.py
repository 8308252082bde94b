"""What a planned `main` does: tensors at fixed places, and kernels called in order.

Before::

    storage = R.memory.alloc_storage(R.shape([64]), 0, "global", "uint8")
    alloc = R.memory.alloc_tensor(storage, 0, R.shape([1, 8, 8, 1]), "uint8", 0)
    encode(x, R.const(31.875), alloc)

After::

    Tensor("input0", 0, ...), Tensor("weights", 0, ...), Tensor("arena", 0, ...)
    Step("encode", (0, 1, 2))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import tvm
from tvm import relax, tirx

from ...errors import UnsupportedError

ALIGNMENT = 64  # What TVM's kernels assume of every tensor.
ARENA, WEIGHTS = "arena", "weights"


@dataclass(frozen=True)
class Tensor:
    """A tensor at `offset` bytes from a base: the arena, the weights, an input or an output."""

    base: str
    offset: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return int(np.prod(self.shape, dtype=np.int64)) * tvm.DataType(self.dtype).itemsize


@dataclass(frozen=True)
class Step:
    """A call of `kernel` with tensors by index; without a kernel, a copy from first to second."""

    kernel: str | None
    tensors: tuple[int, ...]


@dataclass
class Plan:
    """All that a run does, with sizes in bytes."""

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    weights: bytes = b""
    arena_bytes: int = 0


@dataclass
class _Storage:
    """An input, a constant, or a block of memory that tensors take turns in."""

    nbytes: int
    base: str = ARENA
    offset: int = 0


@dataclass(frozen=True)
class _Value:
    """A tensor whose storage may have no place yet."""

    storage: _Storage
    offset: int
    dtype: str
    shape: tuple[int, ...]

    def placed(self) -> Tensor:
        storage = self.storage
        return Tensor(storage.base, storage.offset + self.offset, self.dtype, self.shape)


def make_plan(planned: tvm.IRModule) -> Plan:
    """Read the calls and the memory of `main`.

    Parameters
    ----------
    planned : tvm.IRModule
        As `transform.pipeline.memory_planning` returns it.

    Raises
    ------
    UnsupportedError
        For sizes that are known only at run time, and for calls of anything but kernels.
    """
    reader = _Reader(planned["main"])
    return reader.plan()


class _Reader:
    def __init__(self, main: relax.Function):
        self.main = main
        self.values: dict = {}
        self.storages: list[_Storage] = []
        self.calls: list[tuple[str, list[_Value]]] = []
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
        plan.outputs = [Tensor(f"output{i}", 0, v.dtype, v.shape) for i, v in enumerate(results)]
        plan.arena_bytes = self._place_arena()
        table = _Table(plan.tensors)
        for kernel, arguments in self.calls:
            indices = tuple(table.index(value.placed()) for value in arguments)
            plan.steps.append(Step(kernel, indices))
        for i in copies:
            source = table.index(results[i].placed())
            plan.steps.append(Step(None, (source, table.index(plan.outputs[i]))))
        plan.weights = bytes(self.weights)
        return plan

    def _input(self, index: int, param: relax.Var) -> _Value:
        if not isinstance(param.ty, relax.TensorType):
            raise UnsupportedError(
                f"input {param.name!r}", "isn't a tensor", "Bind it into the module"
            )
        shape = _sizes(param.ty.shape, f"input {param.name!r}")
        value = _Value(_Storage(0, f"input{index}"), 0, str(param.ty.dtype), shape)
        self.values[param] = value
        return value

    def _bind(self, binding: relax.Binding) -> None:
        value = binding.value
        if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.GlobalVar):
            arguments = [self._argument(value.op.name_hint, argument) for argument in value.args]
            self.calls.append((value.op.name_hint, arguments))
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
        reader = {
            "relax.memory.alloc_storage": self._storage,
            "relax.memory.alloc_tensor": self._tensor,
            "relax.reshape": self._view,
        }.get(name)
        if reader is None:
            raise UnsupportedError(
                f"{name or type(expr).__name__}",
                "isn't a kernel, and a C bundle has nothing else to call",
                "Use export_library, or leave this part out of the model",
            )
        return reader(expr)

    def _storage(self, call: relax.Call) -> _Storage:
        (nbytes,) = _sizes(call.args[0], "memory of a tensor")
        self.storages.append(_Storage(nbytes))
        return self.storages[-1]

    def _tensor(self, call: relax.Call) -> _Value:
        storage, offset, shape, dtype = (call.args[i] for i in range(4))
        (offset,) = _sizes([offset.value if hasattr(offset, "value") else offset], "an offset")
        return _Value(self.values[storage], offset, str(dtype.value), _sizes(shape, "a tensor"))

    def _view(self, call: relax.Call) -> _Value:
        value = self._value(call.args[0])
        return _Value(value.storage, value.offset, value.dtype, _sizes(call.ty.shape, "a reshape"))

    def _constant(self, constant: tvm.ir.GenericConst) -> _Value:
        array = np.asarray(constant.value.numpy(), order="C")
        content = array.tobytes()
        if content not in self.places:
            self.weights += bytes(-len(self.weights) % ALIGNMENT)
            self.places[content] = len(self.weights)
            self.weights += content
        storage = _Storage(len(content), WEIGHTS, self.places[content])
        return _Value(storage, 0, str(array.dtype), tuple(array.shape))

    def _place_outputs(self, results: Sequence[_Value]) -> list[int]:
        """Let kernels write into the caller's outputs; return those that must be copied."""
        copies = []
        for i, value in enumerate(results):
            fits = value.storage.nbytes == value.placed().nbytes and value.offset == 0
            if value.storage.base == ARENA and fits:
                value.storage.base = f"output{i}"
            else:
                copies.append(i)
        return copies

    def _place_arena(self) -> int:
        end = 0
        for storage in self.storages:
            if storage.base == ARENA:
                storage.offset = end
                end += -(-storage.nbytes // ALIGNMENT) * ALIGNMENT
        return end


class _Table:
    """Numbers tensors in the order of their first use."""

    def __init__(self, tensors: list[Tensor]):
        self.tensors = tensors
        self.indices: dict[Tensor, int] = {}

    def index(self, tensor: Tensor) -> int:
        if tensor not in self.indices:
            self.indices[tensor] = len(self.tensors)
            self.tensors.append(tensor)
        return self.indices[tensor]


def _sizes(expressions: Iterable[int | tirx.Expr], what: str) -> tuple[int, ...]:
    """Sizes as integers; `UnsupportedError` for those known only at run time."""
    sizes = list(expressions)
    if not all(isinstance(size, (int, tirx.IntImm)) for size in sizes):
        raise UnsupportedError(
            what,
            f"has a size that is known only at run time, {sizes}",
            "Import the model with a fixed batch: a C bundle plans its memory beforehand",
        )
    return tuple(int(size) for size in sizes)
