"""A function that `transform.partition` cut out: layers, and moves of planes between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tvm import relax

from ..layer import ConvLayer
from ..op.packed import packed_encode_op
from ..op.registration import is_call_to
from .offloaded import COMPOSITE, Offloaded, offloaded


@dataclass(frozen=True, eq=False)
class Step:
    """A layer or a move, on values of a region.

    Parameters
    ----------
    part : Offloaded or relax.Call
        A call is one that only moves planes, to `concat`, `packed_concat`, `take`, `interleave`, or
        to `packed_encode` of numbers.
    operands : tuple of int
        Numbers of the values that it reads.
    shape : tuple of int
        Of its result, without the batch.
    """

    part: Offloaded | relax.Call
    operands: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def is_encode(self) -> bool:
        """Whether it quantizes float32 numbers."""
        return isinstance(self.part, relax.Call) and is_call_to(self.part, packed_encode_op)


@dataclass(frozen=True, eq=False)
class Region:
    """What a function computes.

    Values have numbers: first the function's parameters, then the results of the steps.

    Parameters
    ----------
    shapes : tuple of tuple of int
        Of the parameters, without the batch: (height, width, bits, words) of planes, or (height,
        width, channels) of float32 numbers.
    steps : tuple of Step
    outputs : tuple of int
        Numbers of the values that it returns.
    """

    shapes: tuple[tuple[int, ...], ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]

    @property
    def layers(self) -> list[Offloaded]:
        """Convolutions and poolings, in the order in which they run."""
        return [step.part for step in self.steps if isinstance(step.part, Offloaded)]

    def quantizer_of(self, number: int) -> relax.Call | None:
        """Return the first call that quantizes a value."""
        found = (x.part for x in self.steps if x.is_encode and x.operands == (number,))
        return next(found, None)

    def uses(self, number: int) -> int:
        """How many steps read a value, and one if it is returned."""
        return sum(number in step.operands for step in self.steps) + (number in self.outputs)

    def readers(self, number: int) -> list[ConvLayer] | None:
        """Convolutions that read a value as their input; None if anything else does so."""
        found = list[ConvLayer]()
        for step in self.steps:
            if number not in step.operands:
                continue
            layer = step.part.layer if isinstance(step.part, Offloaded) else None
            if layer is None or step.operands[0] != number or step.operands.count(number) > 1:
                return None
            found.append(layer)
        return None if number in self.outputs else found

    @property
    def sources(self) -> list[set[int]]:
        """From which layers each value comes: positions among `layers`.

        Parameters count backwards from -1.
        """
        found, count = [{-1 - number} for number in range(len(self.shapes))], 0
        for step in self.steps:
            is_layer = isinstance(step.part, Offloaded)
            found.append({count} if is_layer else self._read(step, found))
            count += is_layer
        return found

    @property
    def edges(self) -> list[tuple[int, int]]:
        """Source and reader of what layers read; numbers are those of `sources`."""
        sources = self.sources
        layers = [step for step in self.steps if isinstance(step.part, Offloaded)]
        return [(x, i) for i, step in enumerate(layers) for x in sorted(self._read(step, sources))]

    def _read(self, step: Step, sources: list[set[int]]) -> set[int]:
        return set().union(*(sources[number] for number in step.operands))


def region_of(function: relax.Function) -> Region:
    """Read a function that was cut out."""
    reader = _Reader(function)
    steps = tuple(reader.steps())
    shapes = tuple(_shape(param) for param in function.params)
    return Region(shapes, steps, reader.numbers_of(function.body.body))


class _Reader:
    def __init__(self, function: relax.Function):
        self.numbers = {param: i for i, param in enumerate(function.params)}
        self.bindings = [each for block in function.body.blocks for each in block.bindings]
        self.tuples: dict[relax.Var, relax.Tuple] = {}

    def steps(self) -> Iterator[Step]:
        composites: dict[relax.Var, relax.Function] = {}
        for binding in self.bindings:
            var, value = binding.var, binding.value
            if isinstance(value, relax.Function):
                composites[var] = value
            elif isinstance(value, relax.Tuple):
                self.tuples[var] = value
            elif isinstance(value, relax.Call):
                step = self._step(composites[value.op], value)
                self.numbers[var] = max(self.numbers.values()) + 1
                yield step
            else:
                (self.numbers[var],) = self.numbers_of(value)

    def _step(self, composite: relax.Function, call: relax.Call) -> Step:
        part, positions = _part(composite)
        operands = [self.numbers_of(call.args[position])[0] for position in positions]
        return Step(part, tuple(operands), _shape(call))

    def numbers_of(self, expr: relax.Expr) -> tuple[int, ...]:
        """Numbers of the values of an expression: one, or those of a tuple."""
        if isinstance(expr, relax.Tuple):
            return tuple(number for field in expr.fields for number in self.numbers_of(field))
        if isinstance(expr, relax.TupleGetItem):
            return self.numbers_of(expr.tuple_value)[expr.index : expr.index + 1]
        if expr in self.tuples:
            return self.numbers_of(self.tuples[expr])
        return (self.numbers[expr],)


def _part(composite: relax.Function) -> tuple[Offloaded | relax.Call, tuple[int, ...]]:
    """A layer or a move, and the positions of the parameters that it reads."""
    kind = str(composite.attrs[COMPOSITE]).rpartition(".")[2]
    if kind != MOVE:
        part = offloaded(composite)
        return part, part.operands
    bound = {each.var: each.value for block in composite.body.blocks for each in block.bindings}
    (call,) = (value for value in bound.values() if isinstance(value, relax.Call))
    first = bound.get(call.args[0], call.args[0])
    read = first.fields if isinstance(first, relax.Tuple) else call.args
    params = list(composite.params)
    return call, tuple(params.index(each) for each in read if isinstance(each, relax.Var))


MOVE = "move"  # Composites of this kind only move planes.


def _shape(expr: relax.Expr) -> tuple[int, ...]:
    return tuple(map(int, list(expr.ty.shape)[1:]))
