"""`build`: from a module and a target to a compiled model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import tvm
from tvm import relax

from .compiled import CompiledModel, TensorSpec
from .errors import UnsupportedError
from .report import Observer
from .target import Target, load_target
from .transform.pipeline import Pipeline, code_generation, default_pipeline


def build(
    mod: tvm.IRModule,
    target: str | Path | tvm.target.Target | Target = "native",
    strategy: str | Mapping[str, str] = "auto",
    threads: int | None = None,
    database: str | Path | None = None,
    *,
    pipeline: Callable[..., Pipeline] = default_pipeline,
) -> CompiledModel:
    """Compile a Relax module.

    Parameters
    ----------
    mod : tvm.IRModule
        With a function `main` and its weights bound in, as `from_torch` returns it.
    target : str, Path or tvm.target.Target
        ``"native"``, a name from targets/, a path to such a TOML file, or a target of TVM's.
    strategy : str or mapping
        How branch sums are computed: ``"auto"`` or one of `transform.strategy.STRATEGIES`; or one
        of these by layer name, with ``"*"`` for all others.
    threads : int, optional
        1 compiles without parallel loops; None leaves the count to TVM's thread pool.
    database : path, optional
        Tuned records. There are none yet: anything but None is refused.
    pipeline : callable
        From target and strategy to the passes to run; ``no_lowering`` compiles the module as it
        is, ``lambda *a: default_pipeline(*a).insert_after("bitenc.Fold", MyPass())`` adds one.

    Returns
    -------
    CompiledModel

    Raises
    ------
    UnsupportedError
        For what can't be compiled exactly; the message names the layer and the cure.
    TargetError
        For an unknown or malformed target.
    """
    if database is not None:
        raise UnsupportedError("database", "tuned records aren't read yet", "Leave database=None")
    _check_module(mod)
    target = load_target(target, threads)
    observer, passes = Observer(target.name), pipeline(target, strategy)
    inputs, outputs = _specs(mod)
    scheduled = passes.run(mod, observer)
    if "bitenc.Lower" not in passes.names:
        observer("bitenc.Lower", mod)
    with target.tvm_target:
        executable = relax.build(
            scheduled, target.tvm_target, relax_pipeline=code_generation(target)
        )
    return CompiledModel(executable, target, inputs, outputs, observer.report())


def _check_module(mod: tvm.IRModule) -> None:
    names = [global_var.name_hint for global_var in mod.get_global_vars()]
    if "main" not in names or not isinstance(mod["main"], relax.Function):
        raise UnsupportedError(
            "module",
            f"has no Relax function 'main' (it has {names})",
            "Import it with from_torch, or name its entry 'main'",
        )


def _specs(mod: tvm.IRModule) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs of `main`."""
    function = mod["main"]
    result = function.ret_ty
    fields = list(result.fields) if isinstance(result, relax.TupleType) else [result]
    inputs = [_spec(param.name, param.ty) for param in function.params]
    return inputs, [_spec(f"output{i}", ty) for i, ty in enumerate(fields)]


def _spec(name: str, ty: relax.Type) -> TensorSpec:
    if not isinstance(ty, relax.TensorType) or ty.shape is None:
        raise UnsupportedError(
            name, f"is no tensor of known shape but {ty}", "Fix the input shapes"
        )
    sizes = list(ty.shape)
    if not all(isinstance(size, tvm.tirx.IntImm) for size in sizes):
        raise UnsupportedError(
            name, f"has the dynamic shape {sizes}", "Export the model with fixed input shapes"
        )
    return TensorSpec(name, tuple(int(size) for size in sizes), str(ty.dtype))
