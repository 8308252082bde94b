"""Dynamic batch sizes: which are allowed, what is printed, and how large one may be.

A module may leave the first size of its inputs open, one symbol for all of them. Kernels loop over
it outermost, so one compilation serves every batch size. Memory is planned per run, for the batch
at hand. All other sizes are fixed: packing, tiles and border constants depend on them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.sym import Analyzer

from .decode import INT32_MAX
from .errors import UnsupportedError
from .runtime.specs import BATCH, UNKNOWN, TensorSpec


def specs_of(function: relax.Function) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs of `main`.

    Raises
    ------
    UnsupportedError
        For a dynamic size that isn't the batch, or inputs with batches of their own.
    """
    result = function.ret_ty
    fields = list(result.fields) if isinstance(result, relax.TupleType) else [result]
    batch = _batch_of(function.params)
    inputs = [_spec(param.name, param.ty, batch) for param in function.params]
    return inputs, [_output_spec(f"output{i}", ty, batch) for i, ty in enumerate(fields)]


def _output_spec(name: str, ty: relax.Type, batch: tirx.Var | None) -> TensorSpec:
    """Spec of an output; how many boxes are left, for instance, no shape tells."""
    if isinstance(ty, relax.TensorType) and ty.shape is None and ty.ndim >= 0:
        return TensorSpec(name, (UNKNOWN,) * ty.ndim, str(ty.dtype))
    return _spec(name, ty, batch)


def _batch_of(params: Sequence[relax.Var]) -> tirx.Var | None:
    """Return the one symbol that stands for the batch."""
    batch, owner = None, ""
    for param in params:
        for position, size in enumerate(_shape(param.name, param.ty)):
            if isinstance(size, tirx.IntImm):
                continue
            if position > 0:
                raise UnsupportedError(
                    f"input {param.name!r}",
                    f"has the dynamic size {size} in dimension {position}, and only the first, "
                    "the batch, may be dynamic",
                    "Export the model with this size fixed",
                )
            if batch is not None and not batch.same_as(size):
                raise UnsupportedError(
                    f"input {param.name!r}",
                    f"has a batch {size} of its own beside that of {owner!r}",
                    "Export the model with one symbol for the batch of all inputs",
                )
            batch, owner = size, param.name
    return batch


def _shape(name: str, ty: relax.Type) -> list:
    if not isinstance(ty, relax.TensorType) or ty.shape is None:
        raise UnsupportedError(
            name, f"is no tensor of known shape but {ty}", "Fix the input shapes"
        )
    return list(ty.shape)


def _spec(name: str, ty: relax.Type, batch: tirx.Var | None) -> TensorSpec:
    def printed(size: int | tirx.Expr) -> int | str:
        if isinstance(size, tirx.IntImm):
            return int(size)
        text = re.sub(r"T\.int64\((\d+)\)", r"\1", str(size))
        return text if batch is None else re.sub(rf"\b{batch.name}\b", BATCH, text)

    return TensorSpec(name, tuple(map(printed, _shape(name, ty))), str(ty.dtype))


def without_bounds(mod: tvm.IRModule) -> tvm.IRModule:
    """Drop bounds of the batch, for which TVM would keep memory for the largest at all times."""
    function = mod["main"]
    for name in ("tir_var_upper_bound", "tir_var_lower_bound"):
        function = function.without_attr(name)
    changed = tvm.IRModule(mod.functions, attrs=mod.attrs)
    changed.update_func(mod.get_global_var("main"), function)
    return changed


def largest_batch(mod: tvm.IRModule) -> int | None:
    """Largest batch for which the 32-bit indices of scheduled kernels reach every element.

    None where the batch isn't dynamic.
    """
    most = 0

    def note(var: tirx.Var) -> None:
        nonlocal most
        if isinstance(var.ty, tirx.BufferType):
            most = max(most, _elements_per_sample(var.ty.shape))

    for function in mod.functions.values():
        if isinstance(function, tirx.PrimFunc):
            for param in function.params:
                note(param)
            tvm_ffi.structural_walk(function.body, (tirx.Var, note))
    return INT32_MAX // most if most else None


def _elements_per_sample(shape: Sequence) -> int:
    """Elements for a batch of 1; 0 where the batch makes no difference."""
    analyzer, symbols = Analyzer(), set()
    for size in shape:
        symbols.update(tirx.analysis.undefined_vars(size))
    for symbol in symbols:
        analyzer.bind(symbol, tirx.const(1, str(symbol.ty)))
    sizes = [int(analyzer.simplify(size)) for size in shape]
    return math.prod(sizes) if symbols else 0
