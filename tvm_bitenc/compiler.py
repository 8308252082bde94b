"""`build`: from a module and a target to a compiled model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import tvm
from tvm import relax

from .accelerated import AcceleratedModel
from .batch import largest_batch, specs_of, without_bounds
from .compiled import CompiledModel
from .entry.code import CompiledNetwork, compile_network
from .entry.jit import JitNetwork
from .errors import BitencError, UnsupportedError
from .explain import Observer
from .host import check_runs_here
from .machine_code import check_machine_code
from .machines import Machines
from .program import CompiledProgram
from .records.file import load_records
from .runtime.network import Runner
from .runtime.specs import BATCH
from .target import Target, load_target
from .transform.dump import Dump
from .transform.options import with_options
from .transform.pipeline import (
    Pipeline,
    default_pipeline,
    kernel_calls,
    virtual_machine_passes,
)


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
        How branch sums are computed: ``"auto"`` or one of `strategy.ALL_STRATEGIES`; or one
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
    report = observer.report()
    is_dynamic = any(BATCH in spec.shape for spec in inputs)
    largest = largest_batch(scheduled) if is_dynamic else None
    program = CompiledProgram(lambda: target, inputs, outputs, {}, largest)
    code = _code(scheduled, target, [row.name for row in report.layers])
    if isinstance(code, CompiledNetwork):
        program = replace(program, network=code)
    else:
        executable, reason = code
        if target.accelerator is None:
            report.notes.append(f"runs on TVM's virtual machine, for {reason}")
        program = replace(program, executable=executable)
    return model_of(replace(program, report=report.to_dict(), scheduled=scheduled))


def _code(
    scheduled: tvm.IRModule, target: Target, layers: list[str]
) -> CompiledNetwork | tuple[relax.VMExecutable, str]:
    """Compile to one function; for TVM's machine where that can't be, and say why."""
    with target.tvm_target:
        kernels = kernel_calls(target)(scheduled)
    try:
        if target.accelerator is not None:
            raise UnsupportedError("accelerator", "is driven by TVM's runtime", "Build for a CPU")
        network = compile_network(kernels, target)
    except UnsupportedError as error:
        with target.tvm_target:
            functions = virtual_machine_passes(target)(kernels)
        # The machine checks what `main` is given: each kernel need not check it again.
        with with_options({"tirx.disable_assert": True}):
            executable = relax.build(functions, target.tvm_target, relax_pipeline=None)
        check_machine_code(executable.mod.imports, functions, target, layers)
        return executable, f"{error.where} {error.cause}"
    check_machine_code([network.module], kernels, target, layers)
    return network


def model_of(program: CompiledProgram) -> CompiledModel:
    """Make a program callable in this process."""

    def runner() -> Runner:
        check_runs_here(program.target)
        if program.network is None:
            return Machines(program.executable, program.target.threads)
        inputs, outputs = program.inputs, program.outputs
        return JitNetwork(program.network, inputs, outputs, program.target.threads)

    kind = CompiledModel if program.target.accelerator is None else AcceleratedModel
    return kind(program, runner)


def _check_module(mod: tvm.IRModule) -> None:
    if not isinstance(mod, tvm.IRModule):
        raise BitencError(
            "module", f"is of class {type(mod).__name__}", "Import it with from_torch or from_onnx"
        )
    names = [global_var.name_hint for global_var in mod.get_global_vars()]
    if "main" not in names or not isinstance(mod["main"], relax.Function):
        raise UnsupportedError(
            "module",
            f"has no Relax function 'main' (it has {names})",
            "Import it with from_torch, or name its entry 'main'",
        )
