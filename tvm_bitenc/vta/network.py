"""A region of a network to one program: its tensors stay in the accelerator's memory.

Concatenation, nearest-neighbour upsampling and the interleaving of transposed convolutions move
nothing: what reads their result loads it from where its parts are. Where a view can't be loaded so,
a pooling of 1 x 1 windows copies it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tvm import relax
from tvm.ir import Op

from ..accelerator import Accelerator
from ..branches import BranchGeometry
from ..encoding import WORD_BITS
from ..errors import UnsupportedError
from ..layer import ConvLayer, height_width
from ..op.interleave import interleave_op
from ..op.packed_channels import packed_concat_op
from ..op.registration import is_call_to, required_constant
from .compile_pool import pool_piece
from .isa import NIBBLE_BITS
from .link import Piece, link
from .memory import Lifetime, plan
from .offloaded import Offloaded
from .program import Input, Output, Program
from .region import Region, Step
from .stream import FLOATS, INPUT, OUTPUT, RESIDUAL, Fragment
from .tensor import Tensor, View, copied, in_turns, side_by_side, whole
from .tiling import Window
from .window_packing import WindowPacking

CPU = -1  # In place of the position of a layer.
MakePiece = Callable[[Offloaded], Piece]


@dataclass(frozen=True)
class Numbers:
    """Accumulators or float32 numbers: a tensor, and how the CPU takes it."""

    tensor: Tensor
    output: Output


@dataclass(frozen=True)
class FloatOperand:
    """Float32 numbers that the CPU hands over, by the number of the operand."""

    operand: int


Value = View | Numbers | FloatOperand


def compile_network(
    region: Region, accelerator: Accelerator, piece_of: MakePiece | None = None
) -> Program:
    """Compile a region for one sample.

    Parameters
    ----------
    region : Region
    accelerator : Accelerator
    piece_of : callable, optional
        Gives a layer as `Offloaded.piece` compiles it by itself, if that was done before.

    Raises
    ------
    UnsupportedError
        If the accelerator can't run it.
    """
    made = piece_of or (lambda part: part.piece(accelerator))
    try:
        return _Network(accelerator, made, region, packs=True).program()
    except UnsupportedError:  # Passes of planes side by side can be too many.
        return _Network(accelerator, made, region, packs=False).program()


@dataclass(eq=False)
class _Network:
    """What was compiled so far.

    Parameters
    ----------
    accelerator : Accelerator
    piece_of : callable
        See `compile_network`.
    region : Region
    packs : bool
        Whether planes may lie side by side.
    values : list of View, Numbers or FloatOperand
        By their numbers in the region.
    codes : dict of int to View
        Of numbers, by theirs, that are quantized as they are computed.
    shapes : list of tuple of int
        Their planes: (height, width, bits, words).
    fragments : list of Fragment
    writes : dict of str to int
        Which of them writes a tensor, by its name.
    sizes : dict of str to int
        Words of all tensors, by name.
    inputs : dict of str to Input
        Tensors that the CPU hands over; their addresses are still 0.
    """

    accelerator: Accelerator
    piece_of: MakePiece
    region: Region
    packs: bool
    values: list[Value] = field(default_factory=list)
    codes: dict[int, View] = field(default_factory=dict)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    fragments: list[Fragment] = field(default_factory=list)
    writes: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, Input] = field(default_factory=dict)

    def program(self) -> Program:
        """Compile all steps, and give everything its place."""
        for operand, shape in enumerate(self.region.shapes):
            self._add(self._operand(operand, shape), shape)
        for step in self.region.steps:
            self._add(self._step(step), step.shape)
        outputs = [self._output(number) for number in self.region.outputs]
        names = [name for name, _ in outputs]
        addresses, words = plan(self._lifetimes(names))
        inputs = [
            replace(each, address=addresses[name])
            for name, each in self.inputs.items()
            if name in addresses
        ]
        found = [replace(output, address=addresses[name]) for name, output in outputs]
        return link(self.fragments, addresses, words, inputs, found)

    def _operand(self, operand: int, shape: tuple[int, ...]) -> View | FloatOperand:
        if len(shape) == 3:
            return FloatOperand(operand)
        tensor = Tensor(f"operand {operand}", *shape)
        self._hand_over(tensor, operand)
        return whole(tensor, WORD_BITS * tensor.words)

    def _add(self, value: Value, shape: tuple[int, ...]) -> None:
        self.values.append(value)
        self.shapes.append(shape)

    def _hand_over(
        self, tensor: Tensor, operand: int, packing: WindowPacking | None = None
    ) -> None:
        self.inputs[tensor.name] = Input(operand, 0, tensor.size, packing)
        self.sizes[tensor.name] = tensor.size

    def _step(self, step: Step) -> Value:
        part = step.part
        if not isinstance(part, Offloaded):
            return self._encoded(step) if step.is_encode else self._moved(part, step.operands)
        layer = part.layer
        return self._pooled(step, part) if layer is None else self._convolved(step, part, layer)

    def _view(self, number: int) -> View:
        found = self.values[number]
        assert isinstance(found, View)  # Layers and moves read planes.
        return found

    def _encoded(self, step: Step) -> View:
        """Return the codes of numbers, which came with them."""
        (number,) = step.operands
        quantizer = self.region.quantizer_of(number)
        if number not in self.codes or quantizer is None or not quantizer.same_as(step.part):
            cause = "the layer whose numbers it quantizes doesn't"
            raise UnsupportedError("quantizer", cause, "Run it on the CPU")
        return self.codes[number]

    def _moved(self, call: relax.Call, operands: Sequence[int]) -> View:
        """Return a view of what a move reads."""
        views = [self._view(number) for number in operands]
        if is_call_to(call, packed_concat_op):
            channels = [int(count) for count in call.attrs["channels"]]
            return side_by_side([x.with_channels(count) for x, count in zip(views, channels)])
        if call.op == Op.get("relax.concat"):
            return side_by_side(views)
        if is_call_to(call, interleave_op):
            plain = [self._plain(number) for number in operands]
            return in_turns(plain, height_width(call.attrs["strides"]))
        times = len(required_constant(call.args[1])) // int(call.args[0].ty.shape[call.attrs.axis])
        return views[0].repeated(times, int(call.attrs.axis) - 1)

    def _plain(self, number: int) -> View:
        view = self._view(number)
        return view if view.is_plain else self._copy(view, self.shapes[number], "upsampling")

    def _copy(self, view: View, shape: tuple[int, ...], name: str) -> View:
        """Return the view of a new tensor with what a view shows."""
        height, width, bits, _ = shape
        window = Window(
            *(name, (1, height, width, WORD_BITS * view.words), (height, width), (1, 1)),
            BranchGeometry((), (), 0, (1, 1), (0, 0, 0, 0), (1, 1)),
            *(view.words * bits, bits, 0, bits),
        )
        return self._moved_through(pool_piece(window, self.accelerator, view), view, shape)

    def _moved_through(self, piece: Piece, view: View, shape: tuple[int, ...]) -> View:
        """Return the view of a new tensor, which a pooling of a view writes with the same gaps."""
        height, width, bits, _ = shape
        tensor = Tensor(self._new_name(), height, width, bits, view.words)
        self._run(piece.fragment, {OUTPUT: tensor})
        return copied(view, tensor)

    def _new_name(self) -> str:
        return f"tensor {len(self.fragments)}"

    def _run(self, fragment: Fragment, tensors: dict[str, Tensor]) -> None:
        """Append a layer, whose own tensors get other names."""
        relative = {
            index: tensors[name].name if name in tensors else name
            for index, name in fragment.relative.items()
        }
        for name in (OUTPUT, FLOATS):
            if name in tensors:
                self.sizes[tensors[name].name] = tensors[name].size
                self.writes[tensors[name].name] = len(self.fragments)
        self.fragments.append(replace(fragment, relative=relative))

    def _pooled(self, step: Step, part: Offloaded) -> View:
        view = self._view(step.operands[0])
        return self._moved_through(part.piece(self.accelerator, view), view, step.shape)

    def _convolved(self, step: Step, part: Offloaded, layer: ConvLayer) -> View | Numbers:
        """Compile a convolution, and with one that ends in float32 a quantizer of its numbers."""
        number, (source, *others) = len(self.values), step.operands
        quantizer = self.region.quantizer_of(number)
        if quantizer is not None:
            thresholds = required_constant(quantizer.args[1])
            is_kept = self.region.uses(number) > 1
            part = replace(part, float_thresholds=thresholds, writes_floats=is_kept)
        view = self._view(source).with_channels(layer.input_shape[3])
        is_packed = self._writes_packed(number, part, layer)
        piece, tensors = self._piece(part, layer, view, is_packed)
        if others:
            tensors[RESIDUAL] = self._residual(others[0], piece.fragment.residual, part.name)
        values = self._results(piece, layer, part.out_bits if not is_packed else 1)
        tensors |= {name: tensor for name, (tensor, _) in values.items()}
        self._run(piece.fragment, tensors)
        found = list[View | Numbers]()
        for tensor, output in values.values():
            planes = replace(whole(tensor, layer.out_channels), is_packed=is_packed)
            found.append(planes if output.kind == "planes" else Numbers(tensor, output))
        if quantizer is not None and isinstance(found[0], View):
            self.codes[number] = found[0]
        return found[-1]

    def _results(
        self, piece: Piece, layer: ConvLayer, bits: int
    ) -> dict[str, tuple[Tensor, Output]]:
        """Return tensors of what a convolution writes, by the names that it has for them."""
        found, (height, width) = dict[str, tuple[Tensor, Output]](), layer.output_size
        for own, output in zip((OUTPUT, FLOATS), piece.outputs):
            planes = bits if output.kind == "planes" else 1
            words = output.words // (height * width * planes)
            name = f"{self._new_name()} {own}"
            found[own] = Tensor(name, height, width, planes, words), output
        return found

    def _writes_packed(self, number: int, part: Offloaded, layer: ConvLayer) -> bool:
        """Whether the planes of a result lie side by side.

        They do so between convolutions, if this takes fewer words.
        """
        bits, channels = part.out_bits, layer.out_channels
        readers = self.region.readers(number)
        if not (self.packs and bits and readers) or layer.steps:
            return False
        can_read = all(reader.geometry.groups == 1 for reader in readers)
        is_aligned = channels % max(self.accelerator.channels, NIBBLE_BITS) == 0
        is_less = -(-channels * bits // WORD_BITS) < bits * -(-channels // WORD_BITS)
        return can_read and is_aligned and is_less

    def _piece(
        self, part: Offloaded, layer: ConvLayer, view: View, writes_packed: bool
    ) -> tuple[Piece, dict[str, Tensor]]:
        """Compile a convolution for a view, and say what stands for its own input."""
        tensor = view.tensor
        handed_over = self.inputs.get(tensor.name) if tensor is not None else None
        if handed_over is None and (writes_packed or view.is_packed):
            return part.piece(self.accelerator, view, writes_packed), {}
        own = part.piece(self.accelerator, None, True) if writes_packed else self.piece_of(part)
        if handed_over is not None and own.packing is not None:
            return own, {INPUT: self._windows(own, handed_over.operand)}
        if tensor is not None and own.packing is None and view.is_dense:
            return own, {INPUT: tensor}
        try:
            return part.piece(self.accelerator, view), {}
        except UnsupportedError:
            if view.tensor is not None:
                raise
        _, height, width, _ = layer.input_shape
        shape = (height, width, layer.act_bits, view.words)
        return part.piece(self.accelerator, self._copy(view, shape, part.name)), {}

    def _windows(self, piece: Piece, operand: int) -> Tensor:
        """Return the tensor of windows that the CPU packs."""
        name = f"windows {len(self.fragments)}"
        packed = replace(piece.fragment.source.segments[0].tensor, name=name)
        self._hand_over(packed, operand, piece.packing)
        return packed

    def _residual(self, number: int, wanted: Tensor | None, name: str) -> Tensor:
        """Return the tensor of a residual, which must lie as the layer's own output would."""
        value = self.values[number]
        assert wanted is not None  # The layer has a residual.
        if isinstance(value, FloatOperand):
            tensor = replace(wanted, name=f"operand {value.operand} {wanted.words}")
            self._hand_over(tensor, value.operand)
            return tensor
        if isinstance(value, View) and value.tensor is None:
            value = self._copy(value, self.shapes[number], name)
        found = value.tensor
        if found is None or (found.bits, found.words) != (wanted.bits, wanted.words):
            raise UnsupportedError(name, "its residual lies otherwise", "Run it on the CPU")
        return found

    def _output(self, number: int) -> tuple[str, Output]:
        """Return the tensor that holds a value which the CPU takes, and how."""
        value = self.values[number]
        if isinstance(value, Numbers):
            return value.tensor.name, value.output
        assert isinstance(value, View)  # No region returns what it was given.
        view = value if value.tensor is not None else self._copy(value, self.shapes[number], "copy")
        tensor = view.segments[0].tensor
        layout = () if view.is_dense else view.layout
        return tensor.name, Output(0, tensor.size, layout)

    def _lifetimes(self, outputs: list[str]) -> list[Lifetime]:
        found = []
        for name, words in self.sizes.items():
            read = [i for i, x in enumerate(self.fragments) if name in x.relative.values()]
            if name in outputs:
                read.append(len(self.fragments))
            if read:
                found.append(Lifetime(name, words, self.writes.get(name, CPU), max(read)))
        return found
