"""A region of a network to one program: its tensors stay in the accelerator's memory.

Concatenation, nearest-neighbour upsampling and the interleaving of transposed convolutions move
nothing: what reads their result loads it from where its parts are. Where a view can't be loaded so,
a pooling of 1 x 1 windows copies it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tvm.ir import Op

from ..accelerator import Accelerator
from ..branches import BranchGeometry
from ..encoding import WORD_BITS
from ..errors import UnsupportedError
from ..layer import height_width
from ..op.interleave import interleave_op
from ..op.packed_channels import packed_concat_op
from ..op.registration import is_call_to, required_constant
from .compile_pool import pool_piece
from .link import Piece, link
from .memory import Lifetime, plan
from .offloaded import Offloaded
from .program import Input, Output, Program
from .region import Region, Step
from .stream import INPUT, OUTPUT, RESIDUAL, Fragment
from .tensor import Tensor, View, copied, in_turns, side_by_side, whole
from .tiling import Window

CPU = -1  # In place of the position of a layer.
MakePiece = Callable[[Offloaded], Piece]
Accumulators = tuple[str, Output]  # Name of their tensor, and how the CPU takes them.


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
    network = _Network(accelerator, piece_of or (lambda part: part.piece(accelerator)))
    return network.program(region)


@dataclass(eq=False)
class _Network:
    """What was compiled so far.

    Parameters
    ----------
    accelerator : Accelerator
    piece_of : callable
        See `compile_network`.
    values : list of View or Accumulators
        By their numbers in the region; no layer reads accumulators.
    shapes : list of tuple of int
        Their planes: (height, width, bits, words).
    fragments : list of Fragment
    writes : list of str
        Names of the tensors that they write.
    sizes : dict of str to int
        Words of all tensors, by name.
    inputs : dict of str to Input
        Tensors that the CPU hands over; their addresses are still 0.
    """

    accelerator: Accelerator
    piece_of: MakePiece
    values: list[View | Accumulators] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    fragments: list[Fragment] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, Input] = field(default_factory=dict)

    def program(self, region: Region) -> Program:
        """Compile all steps, and give everything its place."""
        for operand, shape in enumerate(region.shapes):
            tensor = Tensor(f"operand {operand}", *shape)
            self._hand_over(tensor.name, Input(operand, 0, tensor.size))
            self._add(whole(tensor, WORD_BITS * tensor.words), shape)
        for step in region.steps:
            self._add(self._step(step), step.shape)
        outputs = [self._output(number) for number in region.outputs]
        names = [name for name, _ in outputs]
        addresses, words = plan(self._lifetimes(names))
        inputs = [
            replace(each, address=addresses[name])
            for name, each in self.inputs.items()
            if name in addresses
        ]
        found = [replace(output, address=addresses[name]) for name, output in outputs]
        return link(self.fragments, addresses, words, inputs, found)

    def _add(self, value: View | Accumulators, shape: tuple[int, ...]) -> None:
        self.values.append(value)
        self.shapes.append(shape)

    def _hand_over(self, name: str, made: Input) -> None:
        self.inputs[name], self.sizes[name] = made, made.words

    def _step(self, step: Step) -> View | Accumulators:
        if not isinstance(step.part, Offloaded):
            return self._moved(step)
        if step.part.layer is None:
            return self._pooled(step)
        return self._convolved(step)

    def _view(self, number: int) -> View:
        found = self.values[number]
        assert isinstance(found, View)  # Layers and moves read planes.
        return found

    def _moved(self, step: Step) -> View:
        """Return a view of what a move reads."""
        call, views = step.part, [self._view(number) for number in step.operands]
        if is_call_to(call, packed_concat_op):
            channels = [int(count) for count in call.attrs["channels"]]
            return side_by_side([x.with_channels(count) for x, count in zip(views, channels)])
        if call.op == Op.get("relax.concat"):
            return side_by_side(views)
        if is_call_to(call, interleave_op):
            plain = [self._plain(number) for number in step.operands]
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
        piece = pool_piece(window, self.accelerator, view)
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
        self.fragments.append(replace(fragment, relative=relative))
        self.writes.append(tensors[OUTPUT].name)
        self.sizes[tensors[OUTPUT].name] = tensors[OUTPUT].size

    def _pooled(self, step: Step) -> View:
        view = self._view(step.operands[0])
        piece = step.part.piece(self.accelerator, view)
        height, width, bits, _ = step.shape
        tensor = Tensor(self._new_name(), height, width, bits, view.words)
        self._run(piece.fragment, {OUTPUT: tensor})
        return copied(view, tensor)

    def _convolved(self, step: Step) -> View | Accumulators:
        part, (number, *others) = step.part, step.operands
        layer = part.layer
        view = self._view(number).with_channels(layer.input_shape[3])
        piece, tensors = self._piece(part, view)
        if others:
            tensors[RESIDUAL] = self._residual(others[0], piece.fragment.residual, part.name)
        # Accumulators have no planes: all their words count as one pixel's.
        height, width, *planes = step.shape
        is_accumulators = piece.output.is_accumulators
        bits = 1 if is_accumulators else planes[0]
        words = piece.output.words // (height * width * bits)
        tensor = Tensor(self._new_name(), height, width, bits, words)
        tensors[OUTPUT] = tensor
        self._run(piece.fragment, tensors)
        if is_accumulators:
            return tensor.name, piece.output
        return whole(tensor, layer.out_channels)

    def _piece(self, part: Offloaded, view: View) -> tuple[Piece, dict[str, Tensor]]:
        """Compile a convolution for a view, and say what stands for its own input."""
        tensor, own = view.tensor, self.piece_of(part)
        if tensor is not None and tensor.name in self.inputs and own.packing is not None:
            operand, name = self.inputs[tensor.name].operand, f"windows {len(self.fragments)}"
            packed = replace(own.fragment.source.segments[0].tensor, name=name)
            self._hand_over(name, Input(operand, 0, packed.size, own.packing))
            return own, {INPUT: packed}
        if tensor is not None and own.packing is None and view.is_dense:
            return own, {INPUT: tensor}
        try:
            return part.piece(self.accelerator, view), {}
        except UnsupportedError:
            if view.tensor is not None:
                raise
        _, height, width, _ = part.layer.input_shape
        shape = (height, width, part.layer.act_bits, view.words)
        return part.piece(self.accelerator, self._copy(view, shape, part.name)), {}

    def _residual(self, number: int, wanted: Tensor, name: str) -> Tensor:
        """Return the tensor of a residual, whose channels must lie as those of the output do."""
        view = self._view(number)
        if view.tensor is None:
            view = self._copy(view, self.shapes[number], name)
        tensor = view.tensor
        assert tensor is not None and (tensor.bits, tensor.words) == (wanted.bits, wanted.words)
        return tensor

    def _output(self, number: int) -> tuple[str, Output]:
        """Return the tensor that holds a value which the CPU takes, and how."""
        value = self.values[number]
        if not isinstance(value, View):
            return value
        view = value if value.tensor is not None else self._copy(value, self.shapes[number], "copy")
        tensor = view.tensor
        assert tensor is not None
        layout = () if view.is_dense else view.layout
        return tensor.name, Output(0, tensor.size, layout)

    def _lifetimes(self, outputs: list[str]) -> list[Lifetime]:
        found = []
        for name, words in self.sizes.items():
            read = [i for i, x in enumerate(self.fragments) if name in x.relative.values()]
            if name in outputs:
                read.append(len(self.fragments))
            if read:
                first = self.writes.index(name) if name in self.writes else CPU
                found.append(Lifetime(name, words, first, max(read)))
        return found
