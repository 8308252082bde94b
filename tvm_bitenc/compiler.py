"""`build`: from a module and a target to a compiled model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import tvm
from tvm import relax

from .batch import largest_batch, specs_of, without_bounds
from .compiled import CompiledModel, model_of
from .errors import UnsupportedError
from .explain import Observer
from .machine_code import check_machine_code
from .program import CompiledProgram
from .records.file import load_records
from .target import Target, load_target
from .transform.dump import Dump
from .transform.options import with_options
from .transform.pipeline import Pipeline, code_generation, default_pipeline


def build(
    mod: tvm.IRModule,
    target: str | Path | tvm.target.Target | Target = "native",
    strategy: str | Mapping[str, str] = "auto",
    threads: int | None = None,
    database: str | Path | bool | None = None,
    *,
    simulator: str | None = None,
    dump: str | Path | None = None,
    pipeline: Callable[..., Pipeline] = default_pipeline,
) -> CompiledModel:
    """Compile a Relax module.

    Parameters
    ----------
    mod : tvm.IRModule
        With a function `main` and its weights bound in, as `from_torch` returns it. The first size
        of its inputs, the batch, may be dynamic; then the model runs with any.
    target : str, Path or tvm.target.Target
        ``"native"``, a name from targets/, a path to such a TOML file, or a target of TVM's.
        ``"vta"`` is the accelerator of targets/vta/default.toml: it runs the layers that it
        supports, the CPU all others.
    strategy : str or mapping
        How branch sums are computed: ``"auto"`` or one of `strategy.STRATEGIES`; or one
        of these by layer name, with ``"*"`` for all others. On an accelerator ``"auto"`` takes
        it where it can, and any other name the CPU.
    threads : int, optional
        1 compiles without parallel loops; None leaves the count to TVM's thread pool.
    database : path or bool, optional
        Tuned records, as `tune` writes them: a file, or a folder of MetaSchedule's. None and True
        take those that ship with tvm-bitenc, False none at all. Records of another CPU or release
        of TVM aren't applied; the report says which layers have one.
    simulator : {"functional", "verilog"}, optional
        What stands for the accelerator of the target: numpy (the default), or its Verilog, cycle by
        cycle, which needs Verilator.
    dump : path, optional
        A folder: the module is written there as imported and after every pass, as text.
    pipeline : callable
        From target, strategy and records to the passes to run. ``no_lowering`` compiles the module
        as it is; ``lambda *a: default_pipeline(*a).insert_after("bitenc.Fold", MyPass())`` adds a
        pass.

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
    _check_module(mod)
    target = load_target(target, threads, simulator)
    passes = pipeline(target, strategy, load_records(database, target))
    observer = Observer(target)
    inputs, outputs = specs_of(mod["main"])
    mod = without_bounds(mod)
    after = None if dump is None else Dump(dump)
    if after is not None:
        after("imported", mod)
    scheduled = passes.run(mod, observer, after)
    if "bitenc.Lower" not in passes.names:
        observer("bitenc.Lower", mod)
    with target.tvm_target:
        kernels = code_generation(target)(scheduled)
    # The machine checks what `main` is given: each kernel need not check it again.
    with with_options({"tirx.disable_assert": True}):
        executable = relax.build(kernels, target.tvm_target, relax_pipeline=None)
    report, batch = observer.report(), largest_batch(scheduled)
    check_machine_code(executable, kernels, target, [row.name for row in report.layers])
    return model_of(
        CompiledProgram(executable, target, inputs, outputs, report.to_dict(), batch, scheduled)
    )


def _check_module(mod: tvm.IRModule) -> None:
    names = [global_var.name_hint for global_var in mod.get_global_vars()]
    if "main" not in names or not isinstance(mod["main"], relax.Function):
        raise UnsupportedError(
            "module",
            f"has no Relax function 'main' (it has {names})",
            "Import it with from_torch, or name its entry 'main'",
        )
