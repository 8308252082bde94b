"""Whole Relax modules under QEMU, kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax, tirx

from tvm_bitenc.op.registration import constant_value, is_call_to
from tvm_bitenc.target import Target
from tvm_bitenc.transform.pipeline import Pipeline, default_pipeline, kernel_calls

from .program import Plan, Program

# Behind it, TVM's passes plan memory; until then `main` calls kernels by name.
LAST = "bitenc.MultiplyAdd"


@dataclass(frozen=True, eq=False)
class ModuleRun:
    """What one run of a module gave.

    Parameters
    ----------
    outputs : list of ndarray
    instructions : list of (str, int)
        Name of each kernel that ran, in order, and how many instructions it executed.
    """

    outputs: list[np.ndarray]
    instructions: list[tuple[str, int]]


class EmulatedModule:
    """A module built for a target that QEMU runs, by the passes of `tvm_bitenc.build`.

    Parameters
    ----------
    mod : tvm.IRModule
        Of fixed shapes.
    target : Target
        One whose kernels start no threads.
    strategy : str or mapping
        As of `tvm_bitenc.build`.
    pipeline : callable
        As of `tvm_bitenc.build`.
    """

    def __init__(
        self,
        mod: tvm.IRModule,
        target: Target,
        strategy="auto",
        pipeline: Callable[..., Pipeline] = default_pipeline,
    ):
        passes = kernel_calls(target).passes
        stop = [step.info.name for step in passes].index(LAST) + 1
        with target.tvm_target:
            mod = tvm.transform.Sequential(list(passes[:stop]))(pipeline(target, strategy).run(mod))
        functions = {
            var.name_hint: function
            for var, function in mod.functions_items()
            if isinstance(function, tirx.PrimFunc)
        }
        self.main, self.program = mod["main"], Program(functions, target)

    def run(self, *inputs: np.ndarray) -> ModuleRun:
        """Run once."""
        return _Interpreter(self.program).run(self.main, inputs)


class _Interpreter:
    """Turns the bindings of `main` into a plan."""

    def __init__(self, program: Program):
        self.plan, self.values, self.names = Plan(program), {}, []

    def run(self, main: relax.Function, inputs) -> ModuleRun:
        for param, value in zip(main.params, inputs, strict=True):
            self.values[param] = self.plan.tensor(value)
        for block in main.body.blocks:
            for binding in block.bindings:
                self.values[binding.var] = self._value(binding.value)
        wanted = self._value(main.body.body)
        wanted = list(wanted) if isinstance(wanted, tuple) else [wanted]
        found = self.plan.run(wanted)
        return ModuleRun(found.outputs, list(zip(self.names, found.instructions, strict=True)))

    def _value(self, expr: relax.Expr):
        """Number of a tensor, or a tuple of values."""
        if isinstance(expr, relax.Var):
            return self.values[expr]
        if isinstance(expr, relax.Tuple):
            return tuple(self._value(field) for field in expr.fields)
        if isinstance(expr, relax.TupleGetItem):
            return self._value(expr.tuple_value)[expr.index]
        if (constant := constant_value(expr)) is not None:
            return self.plan.tensor(constant)
        if is_call_to(expr, "relax.call_tir"):
            return self._call(expr)
        raise NotImplementedError(f"{expr} isn't a kernel's call")

    def _call(self, call: relax.Call):
        types = list(call.ty.fields) if isinstance(call.ty, relax.TupleType) else [call.ty]
        arguments = self._value(call.args[1])
        outputs = [
            self.plan.output([int(size) for size in ty.shape], str(ty.dtype)) for ty in types
        ]
        name = call.args[0].name_hint
        self.plan.call(name, [*arguments, *outputs])
        self.names.append(name)
        return tuple(outputs) if isinstance(call.ty, relax.TupleType) else outputs[0]
