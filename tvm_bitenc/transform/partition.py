"""What the accelerator supports is cut out, as much at a time as hangs together.

Before::

    def main(planes, residual):
        codes = bitenc.packed_conv2d(planes, w, o, t, d)
        sums = bitenc.packed_lookup(codes, residual, table)
        out = bitenc.packed_max_pool2d(sums)

After::

    def fused(planes, residual):  # Codegen="bitenc_vta"
        def composite(planes, residual):  # Composite="bitenc_vta.residual"
            codes = bitenc.packed_conv2d(planes, w, o, t, d)
            return bitenc.packed_lookup(codes, residual, table)
        def composite1(sums):  # Composite="bitenc_vta.max_pool2d"
            return bitenc.packed_max_pool2d(sums)
        return composite1(composite(planes, residual))

    def main(planes, residual):
        out = fused(planes, residual)

Concatenation, repetition and interleaving of planes between layers belong to them. So does float
arithmetic behind a convolution where the accelerator has float units: steps that these compute join
the convolution as in `fuse_float`, and so do the thresholds of a quantizer.

The function has its finished program, as text, in the attribute ``program``. A convolution or
pooling that stays keeps the reason in its attribute ``cpu_reason``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import tvm
from tvm import relax
from tvm.relax.backend.utils import has_leaking_intermediate_variables
from tvm.relax.dpl import DFPattern, is_const, is_op, is_tuple, wildcard
from tvm.relax.transform import PatternCheckContext

from ..accelerator import Accelerator
from ..errors import UnsupportedError
from ..layer import ConvLayer
from ..op.interleave import interleave_op
from ..op.lookup import packed_lookup_op
from ..op.packed import packed_conv2d_op, packed_encode_op, packed_max_pool2d_op
from ..op.packed_channels import packed_concat_op
from ..op.registration import is_call_to, required_constant, with_attributes
from ..strategy import AUTO, OTHERS, by_layer
from ..target import Target
from ..vta.binary import dumps
from ..vta.codegen import NAME
from ..vta.compile_layer import check_floats
from ..vta.link import Piece
from ..vta.network import compile_network
from ..vta.offloaded import PROGRAM, Offloaded, fused_encode, fused_lookup
from ..vta.region import MOVE, Region, region_of
from .fuse_float import fuse_steps
from .rewrite import Graph, is_external, rewrite_calls

REASON = "cpu_reason"
MAX_PARTS = 8  # Of a concatenation that joins whole words.
MAX_REPEATS = 16  # Of a row or column; pixels lie so far apart at most.
PIXELS, WORDS = (1, 2), 4  # Axes of planes (N, H, W, bits, words).
AFTER_LAYER = "after_layer"  # Of a quantizer that an accelerator might take along.
NUMBER = "number"  # Of a call that an accelerator might run.


@tvm.transform.module_pass(opt_level=0, name="bitenc.Partition")
@dataclass(frozen=True)
class Partition:
    """Cut out what the accelerator supports.

    Parameters
    ----------
    target : Target
        One without an accelerator leaves the module as it is.
    strategy : str or mapping
        As for `Strategy`; a layer with one that isn't ``"auto"`` stays on the CPU.
    """

    target: Target
    strategy: str | Mapping[str, str] = "auto"

    def __post_init__(self):
        by_layer(self.strategy)

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        if self.target.accelerator is None:
            return mod
        programs, wanted = _Programs(self.target.accelerator), by_layer(self.strategy)
        pools, accelerator = 0, self.target.accelerator

        def fits(layer: ConvLayer) -> bool:
            try:
                check_floats(layer, accelerator)
            except UnsupportedError:
                return False
            return True

        if accelerator.float_units:
            # Without the names that it leaves, which patterns don't look behind.
            mod = relax.transform.CanonicalizeBindings()(fuse_steps(mod, fits))

        def decide(call: relax.Call, graph: Graph) -> relax.Expr | None:
            nonlocal pools
            if is_call_to(call, packed_max_pool2d_op):
                call = with_attributes(call, layer=f"max_pool{pools}")
                pools += 1
            elif is_call_to(call, packed_encode_op):
                source = graph.definition(call.args[0])
                is_after = is_call_to(source, packed_conv2d_op) and bool(source.attrs["steps"])
                return with_attributes(call, **{AFTER_LAYER: is_after}) if is_after else None
            elif not is_call_to(call, packed_conv2d_op):
                return None
            strategy = wanted.get(str(call.attrs["layer"]), wanted[OTHERS])
            reason = f"strategy {strategy!r} was asked for" if strategy != AUTO else ""
            call = with_attributes(call, **{REASON: reason, NUMBER: programs.new_number()})
            return call if reason else with_attributes(call, **{REASON: programs.refusal(call)})

        mod = rewrite_calls(mod, decide)
        layers = patterns(programs)
        try:
            return _with_programs(_together([*layers, *moves()])(mod), programs)
        except UnsupportedError:  # Each layer can run by itself.
            alone = relax.transform.FuseOpsByPattern(layers, annotate_codegen=True)
            return _with_programs(alone(mod), programs)


def _together(patterns: Sequence[Pattern]) -> tvm.transform.Pass:
    """Return passes that cut out what matches, and all that hangs together with it."""
    return tvm.transform.Sequential(
        [relax.transform.FuseOpsByPattern(patterns), relax.transform.MergeCompositeFunctions()]
    )


def _with_programs(mod: tvm.IRModule, programs: _Programs) -> tvm.IRModule:
    """Compile all that was cut out."""
    mod = _without_lone_moves(mod)
    for global_var, function in list(mod.functions_items()):
        if isinstance(function, relax.Function) and is_external(function):
            text = programs.text(region_of(function))
            mod[global_var] = function.with_attr(PROGRAM, text)
    return mod


def _without_lone_moves(mod: tvm.IRModule) -> tvm.IRModule:
    """Give functions back to the CPU that would only move planes."""
    moves = {
        var: function
        for var, function in mod.functions_items()
        if isinstance(function, relax.Function)
        and is_external(function)
        and not region_of(function).layers
    }
    if not moves:
        return mod
    for var, function in mod.functions_items():
        if isinstance(function, relax.Function) and not is_external(function):
            mod[var] = function.inline_functions(moves)
    for var in moves:
        del mod[var]
    return mod


@dataclass(frozen=True, eq=False)
class _Programs:
    """What was compiled in one run of the pass: each layer once.

    Parameters
    ----------
    accelerator : Accelerator
    made : dict
        Layers, or why there is none, by the number of their call and what follows it.
    numbers : iterator of int
    """

    accelerator: Accelerator
    made: dict[tuple[int, bool, bool, bool], Piece | UnsupportedError] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def new_number(self) -> int:
        """Tell calls apart: `FuseOpsByPattern` makes new ones of them, with their attributes."""
        return next(self.numbers)

    def refusal(self, call: relax.Call) -> str:
        """Why a call can't run on the accelerator; empty if it can."""
        found = self._made(Offloaded(call))
        return f"{found.cause}. {found.cure}" if isinstance(found, UnsupportedError) else ""

    def fits(self, part: Offloaded) -> bool:
        """Whether it can run on the accelerator."""
        return not isinstance(self._made(part), UnsupportedError)

    def text(self, region: Region) -> str:
        """Return the program of a function that was cut out."""
        return dumps(compile_network(region, self.accelerator, self._piece), self.accelerator)

    def _piece(self, part: Offloaded) -> Piece:
        made = self._made(part)
        if isinstance(made, UnsupportedError):
            raise made
        return made

    def _made(self, part: Offloaded) -> Piece | UnsupportedError:
        has_table, has_codes = part.table is not None, part.float_thresholds is not None
        key = int(part.call.attrs[NUMBER]), has_table, has_codes, part.writes_floats
        if key not in self.made:
            try:
                self.made[key] = part.piece(self.accelerator)
            except UnsupportedError as error:
                self.made[key] = error
        return self.made[key]


Pattern = tuple[str, DFPattern, dict, Callable[[PatternCheckContext], bool]]


def patterns(programs: _Programs) -> list[Pattern]:
    """Layers that `FuseOpsByPattern` looks for, the largest first."""

    def fits(context: PatternCheckContext) -> bool:
        return _table_fits(context, programs)

    def convolution() -> DFPattern:
        return is_op(packed_conv2d_op.name)(wildcard(), varg_default_wildcard=True)

    def lookup(*operands: DFPattern) -> DFPattern:
        return is_op(packed_lookup_op.name)(*operands, is_const())

    def encodes(context: PatternCheckContext) -> bool:
        return _codes_fit(context, programs)

    encode = is_op(packed_encode_op.name)(convolution(), is_const())
    pool = is_op(packed_max_pool2d_op.name)(wildcard())
    return [
        (f"{NAME}.residual", lookup(convolution(), wildcard()), {}, fits),
        (f"{NAME}.residual", lookup(wildcard(), convolution()), {}, fits),
        (f"{NAME}.table", lookup(convolution()), {}, fits),
        (f"{NAME}.encode", encode, {}, encodes),
        (f"{NAME}.conv2d", convolution(), {}, _is_supported),
        (f"{NAME}.max_pool2d", pool, {}, _is_supported),
    ]


def moves() -> list[Pattern]:
    """Ops between layers that the accelerator does on the way: they move planes, or quantize."""

    def is_of_planes(context: PatternCheckContext) -> bool:
        return str(context.matched_expr.ty.dtype) == "uint64"

    def joins_channels(context: PatternCheckContext) -> bool:
        return is_of_planes(context) and int(context.matched_expr.attrs.axis) == WORDS

    joined = (is_tuple([wildcard() for _ in range(count)]) for count in range(2, MAX_PARTS + 1))
    found = [
        (is_op(packed_concat_op.name)(wildcard(), varg_default_wildcard=True), is_of_planes),
        *((is_op("relax.concat")(parts), joins_channels) for parts in joined),
        (is_op(interleave_op.name)(wildcard(), varg_default_wildcard=True), is_of_planes),
        (is_op("relax.take")(wildcard(), is_const()), _repeats_pixels),
        (is_op(packed_encode_op.name)(wildcard(), is_const()), _is_after_layer),
    ]
    return [(f"{NAME}.{MOVE}", pattern, {}, fits) for pattern, fits in found]


def _is_after_layer(context: PatternCheckContext) -> bool:
    attrs = context.matched_expr.attrs
    return bool(attrs) and bool(attrs.get(AFTER_LAYER, False))


def _repeats_pixels(context: PatternCheckContext) -> bool:
    """Whether a `take` repeats every row or every column equally often."""
    call = context.matched_expr
    if (
        str(call.ty.dtype) != "uint64"
        or call.attrs.axis is None
        or int(call.attrs.axis) not in PIXELS
    ):
        return False
    indices, size = required_constant(call.args[1]), call.args[0].ty.shape[int(call.attrs.axis)]
    if indices.ndim != 1 or not len(indices) or len(indices) % int(size):
        return False
    times = len(indices) // int(size)
    return times <= MAX_REPEATS and np.array_equal(indices, np.arange(len(indices)) // times)


def _is_supported(context: PatternCheckContext) -> bool:
    return not str(context.matched_expr.attrs[REASON])


def _table_fits(context: PatternCheckContext, programs: _Programs) -> bool:
    """Whether a convolution and the table behind it, which alone reads it, make one program."""
    if has_leaking_intermediate_variables(context):
        return False
    part = fused_lookup(context.matched_expr, context.matched_bindings.get, lambda _expr: 0)
    return not str(part.call.attrs[REASON]) and programs.fits(part)


def _codes_fit(context: PatternCheckContext, programs: _Programs) -> bool:
    """Whether a convolution to floats and the quantizer that alone reads them make one program."""
    if has_leaking_intermediate_variables(context):
        return False
    part = fused_encode(context.matched_expr, context.matched_bindings.get, lambda _expr: 0)
    return not str(part.call.attrs[REASON]) and programs.fits(part)
