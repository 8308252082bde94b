"""What the accelerator supports is cut out, for its code generator.

Before::

    def main(planes, residual):
        codes = bitenc.packed_conv2d(planes, w, o, t, d)
        out = bitenc.packed_lookup(codes, residual, table)

After::

    def fused(planes, residual):  # Codegen="bitenc_vta"
        def composite(planes, residual):  # Composite="bitenc_vta.residual"
            codes = bitenc.packed_conv2d(planes, w, o, t, d)
            return bitenc.packed_lookup(codes, residual, table)
        return composite(planes, residual)

    def main(planes, residual):
        out = fused(planes, residual)

Float arithmetic behind a convolution goes with it where the accelerator has float units: steps
that these compute join the convolution as in `fuse_float`, and so do the thresholds of a quantizer
that alone reads the numbers.

The function has its finished program, as text, in the attribute ``program``. A convolution or
pooling that stays keeps the reason in its attribute ``cpu_reason``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import tvm
from tvm import relax
from tvm.relax.backend.utils import has_leaking_intermediate_variables
from tvm.relax.dpl import DFPattern, is_const, is_op, wildcard
from tvm.relax.transform import PatternCheckContext

from ..accelerator import Accelerator
from ..errors import UnsupportedError
from ..layer import ConvLayer
from ..op.lookup import packed_lookup_op
from ..op.packed import packed_conv2d_op, packed_encode_op, packed_max_pool2d_op
from ..op.registration import is_call_to, with_attributes
from ..strategy import AUTO, OTHERS, by_layer
from ..target import Target
from ..vta.binary import dumps
from ..vta.codegen import NAME
from ..vta.compile_layer import check_floats
from ..vta.offloaded import PROGRAM, Offloaded, fused_encode, fused_lookup, offloaded
from ..vta.program import Program
from .fuse_float import fuse_steps
from .rewrite import Graph, is_external, rewrite_calls

REASON = "cpu_reason"
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
            elif not is_call_to(call, packed_conv2d_op):
                return None
            strategy = wanted.get(str(call.attrs["layer"]), wanted[OTHERS])
            reason = f"strategy {strategy!r} was asked for" if strategy != AUTO else ""
            call = with_attributes(call, **{REASON: reason, NUMBER: programs.new_number()})
            return call if reason else with_attributes(call, **{REASON: programs.refusal(call)})

        mod = rewrite_calls(mod, decide)
        mod = relax.transform.FuseOpsByPattern(patterns(programs), annotate_codegen=True)(mod)
        for global_var, function in list(mod.functions_items()):
            if isinstance(function, relax.Function) and is_external(function):
                text = programs.text(offloaded(function))
                mod[global_var] = function.with_attr(PROGRAM, text)
        return mod


@dataclass(frozen=True, eq=False)
class _Programs:
    """What was compiled in one run of the pass: each program once.

    Parameters
    ----------
    accelerator : Accelerator
    made : dict
        Programs, or why there is none, by the number of their call and what follows it.
    numbers : iterator of int
    """

    accelerator: Accelerator
    made: dict[tuple[int, bool, bool], Program | UnsupportedError] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def new_number(self) -> int:
        """Tell calls apart: `FuseOpsByPattern` makes new ones of them, with their attributes."""
        return next(self.numbers)

    def refusal(self, call: relax.Call) -> str:
        """Why a call can't run on the accelerator; empty if it can."""
        found = self._made(Offloaded(call))
        return f"{found.cause}. {found.cure}" if isinstance(found, UnsupportedError) else ""

    def fits(self, part: Offloaded) -> bool:
        """Whether there is a program."""
        return not isinstance(self._made(part), UnsupportedError)

    def text(self, part: Offloaded) -> str:
        """Return the program of a function that was cut out."""
        made = self._made(part)
        if isinstance(made, UnsupportedError):
            raise made
        return dumps(made, self.accelerator)

    def _made(self, part: Offloaded) -> Program | UnsupportedError:
        has_table, has_codes = part.table is not None, part.float_thresholds is not None
        key = int(part.call.attrs[NUMBER]), has_table, has_codes
        if key not in self.made:
            try:
                self.made[key] = part.program(self.accelerator)
            except UnsupportedError as error:
                self.made[key] = error
        return self.made[key]


def patterns(
    programs: _Programs,
) -> list[tuple[str, DFPattern, dict, Callable[[PatternCheckContext], bool]]]:
    """What `FuseOpsByPattern` looks for, the largest first."""

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
