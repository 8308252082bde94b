"""A layer that `transform.partition` cut out: what it computes, as the compiler takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import tvm
from tvm import relax

from ..accelerator import Accelerator
from ..branches import BranchGeometry
from ..layer import ConvLayer, four_sides, height_width
from ..op.lookup import packed_lookup_op
from ..op.packed import conv_layer_of, packed_conv2d_op, packed_encode_op
from ..op.registration import is_call_to, required_constant
from .binary import loads
from .compile_layer import Ending, conv_piece
from .compile_pool import pool_piece
from .link import Piece, link_layer
from .program import Program
from .tensor import View
from .tiling import Window

COMPOSITE = "Composite"  # TVM's attribute of the inner function, which holds the ops themselves.
PROGRAM = "program"  # Attribute of the outer one: its finished program, by `binary.dumps`.


@dataclass(frozen=True)
class Offloaded:
    """A convolution, perhaps with a table of codes or a quantizer behind it, or a max pooling.

    Parameters
    ----------
    call : relax.Call
        To `packed_conv2d` or `packed_max_pool2d`.
    table : ndarray of uint8, optional
        See `compile_conv`.
    operands : tuple of int
        Which parameters of the function the program reads, in its order: input, residual.
    float_thresholds : ndarray of float32, optional
    writes_floats : bool
        See `compile_conv`.
    """

    call: relax.Call
    table: np.ndarray | None = None
    operands: tuple[int, ...] = (0,)
    float_thresholds: np.ndarray | None = None
    writes_floats: bool = False

    @property
    def name(self) -> str:
        """Name of the layer."""
        return str(self.call.attrs.get("layer", ""))

    @property
    def layer(self) -> ConvLayer | None:
        """The convolution on one sample: a program runs once for each of a batch."""
        if not is_call_to(self.call, packed_conv2d_op):
            return None
        layer = conv_layer_of(self.call)
        return replace(layer, input_shape=(1, *layer.input_shape[1:]), has_dynamic_batch=False)

    @property
    def out_bits(self) -> int:
        """Of the codes that it ends in; 0 for numbers."""
        if self.float_thresholds is not None:
            return len(self.float_thresholds).bit_length()
        if self.table is not None:
            return max(int(self.table.max()).bit_length(), 1)
        layer = self.layer
        return 0 if layer is None or layer.thresholds is None else layer.out_bits

    @property
    def samples(self) -> int:
        """Runs of the program per call, 1 where the batch is dynamic."""
        batch = self.call.args[0].ty.shape[0]
        return int(batch) if isinstance(batch, tvm.tirx.IntImm) else 1

    def piece(
        self,
        accelerator: Accelerator,
        source: View | None = None,
        writes_packed: bool = False,
    ) -> Piece:
        """Compile it for one sample.

        Parameters
        ----------
        accelerator : Accelerator
        source : View, optional
            What it reads in the accelerator's memory; None for what the CPU hands over.
        writes_packed : bool
            See `compile_conv`.

        Raises
        ------
        UnsupportedError
            If the accelerator can't run it.
        """
        layer = self.layer
        if layer is None:
            return pool_piece(window_of(self.call), accelerator, source)
        is_kept = self.writes_floats or self.float_thresholds is None
        ending = Ending(self.table, self.float_thresholds, is_kept)
        reads_packed = source is not None and source.is_packed
        return conv_piece(
            *(layer, accelerator, ending, source),
            reads_packed=reads_packed,
            writes_packed=writes_packed,
        )

    def program(self, accelerator: Accelerator) -> Program:
        """Compile it by itself, as `piece` does."""
        return link_layer(self.piece(accelerator))


def program_of(function: relax.Function) -> tuple[Program, Accelerator]:
    """Return the finished program of a function that was cut out, and what it is for."""
    return loads(str(function.attrs[PROGRAM]))


def window_of(call: relax.Call) -> Window:
    """Sizes of a `packed_max_pool2d`, for one sample."""
    _, height, width, bits, words = call.args[0].ty.shape
    attrs = call.attrs
    strides, dilation = height_width(attrs["strides"]), height_width(attrs["dilation"])
    return Window(
        str(call.attrs.get("layer", "max_pool2d")),
        (1, int(height), int(width), 64 * int(words)),
        height_width(attrs["out_size"]),
        height_width(attrs["pool_size"]),
        BranchGeometry((), (), 0, strides, four_sides(attrs["padding"]), dilation),
        words=int(words) * int(bits),
        act_bits=int(bits),
        weight_rows=0,
        out_bits=int(bits),
    )


def offloaded(composite: relax.Function) -> Offloaded:
    """Read a composite of a layer; operands are positions of its parameters."""
    bound = {each.var: each.value for block in composite.body.blocks for each in block.bindings}
    params = list(composite.params)
    calls = [value for value in bound.values() if isinstance(value, relax.Call)]
    for call in calls:
        if is_call_to(call, packed_lookup_op):
            return fused_lookup(call, bound.get, params.index)
        if is_call_to(call, packed_encode_op):
            return fused_encode(call, bound.get, params.index)
    return Offloaded(calls[0], operands=_operands(calls[0], params.index))


def _operands(call: relax.Call, position: Callable[[relax.Expr], int]) -> tuple[int, ...]:
    """Positions of what a convolution or pooling reads besides constants."""
    is_float = is_call_to(call, packed_conv2d_op) and conv_layer_of(call).has_residual
    return tuple(position(argument) for argument in call.args[: 1 + is_float])


def fused_encode(
    encode: relax.Call,
    definition: Callable[[relax.Expr], relax.Expr | None],
    position: Callable[[relax.Expr], int],
) -> Offloaded:
    """Read a `packed_encode` of a convolution to floats; parameters as of `fused_lookup`."""
    numbers, thresholds = encode.args
    call = definition(numbers)
    assert isinstance(call, relax.Call)  # The pattern says so.
    return Offloaded(call, None, _operands(call, position), required_constant(thresholds))


def fused_lookup(
    lookup: relax.Call,
    definition: Callable[[relax.Expr], relax.Expr | None],
    position: Callable[[relax.Expr], int],
) -> Offloaded:
    """Read a `packed_lookup` whose first or second operand is a convolution.

    Parameters
    ----------
    lookup : relax.Call
    definition : callable
        From a variable to what it is bound to, or None.
    position : callable
        From another operand to its position among the parameters.
    """
    *planes, codes = lookup.args
    values = enumerate(definition(expr) for expr in planes)
    own, call = next((i, x) for i, x in values if x is not None and is_call_to(x, packed_conv2d_op))
    table = required_constant(codes)
    operands = [position(call.args[0])]
    if len(planes) == 1:
        return Offloaded(call, table[:, None], tuple(operands))
    operands.append(position(planes[1 - own]))
    return Offloaded(call, table if own == 0 else table.T, tuple(operands))
