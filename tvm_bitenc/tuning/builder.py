"""Candidates become libraries, in processes that live as long as the tuning."""

from __future__ import annotations

import concurrent.futures
import shutil
import tempfile
from collections.abc import Callable, Sequence

import numpy as np
import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from tvm.support.popen_pool import PopenPoolExecutor

from ..errors import BitencError, TargetError, first_line
from ..features import architecture_of
from ..target import Target
from ..threads import physical_cores
from .artifact import Artifact
from .carrier import candidate_of, workload_key
from .measure import Job
from .task import DEFAULT, Candidate, Task


def compile_kernel(
    function: tvm.tirx.PrimFunc, target: tvm.target.Target, path: str, linker: str
) -> None:
    """Compile a function into a shared library: the work of a process."""
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    library = tvm.compile(module, target=target)
    library.export_library(path, fcompile=tvm.support.cc.cross_compiler(linker))


def linker_of(target: Target) -> str:
    """Name of the program that links for a target.

    Raises
    ------
    TargetError
        If it isn't installed.
    """
    host = architecture_of(tvm.target.codegen.llvm_get_system_triple())
    prefix = "" if target.architecture == host else f"{target.triple}-"
    found = shutil.which(f"{prefix}gcc")
    if found is None:
        raise TargetError(
            f"target {target.name!r}", f"{prefix}gcc isn't installed", "Install it to tune for it"
        )
    return found


def _nothing() -> None:
    """Let a process start."""


def settled(
    result: Artifact | Exception,
) -> concurrent.futures.Future[Artifact]:
    """Return a future that is done."""
    done: concurrent.futures.Future[Artifact] = concurrent.futures.Future()
    if isinstance(result, Exception):
        done.set_exception(result)
    else:
        done.set_result(result)
    return done


class BuilderPool:
    """Compiles kernels in several processes; one that hangs is killed and replaced.

    Parameters
    ----------
    workers : int, optional
        As many as there are cores by default.
    timeout : float
        Seconds that a candidate may take.
    """

    def __init__(self, workers: int | None = None, timeout: float = 60.0):
        self.workers, self.timeout = workers or physical_cores(), timeout
        self._pool = PopenPoolExecutor(max_workers=self.workers, timeout=timeout)
        self._root = tempfile.mkdtemp(prefix="bitenc-tune-")
        # A process imports TVM at its first job; time-outs begin behind that.
        for future in [self._pool.submit(_nothing) for _ in range(self.workers)]:
            future.result()

    def submit(self, task: Task, candidate: Candidate) -> concurrent.futures.Future[Artifact]:
        """Build a candidate; the future's result is an `Artifact`."""
        kernel = task.kernel(candidate)
        if kernel is None:
            return settled(BitencError("candidate", "no rule takes it", "Try another"))
        artifact = Artifact(tempfile.mkdtemp(dir=self._root))
        for i, value in enumerate(kernel.constants):
            np.save(artifact.constant(i), value)
        compiled = self._pool.submit(
            compile_kernel,
            kernel.function,
            task.target.tvm_target,
            artifact.library,
            linker_of(task.target),
        )
        done: concurrent.futures.Future[Artifact] = concurrent.futures.Future()

        def finish(future: concurrent.futures.Future[None]) -> None:
            error = future.exception()
            done.set_exception(error) if error else done.set_result(artifact)

        compiled.add_done_callback(finish)
        return done

    def close(self) -> None:
        """End the processes and delete the libraries."""
        self._pool.shutdown(wait=False)
        shutil.rmtree(self._root, ignore_errors=True)


class Workshop:
    """Builds candidates, and knows what was built where.

    Parameters
    ----------
    pool : BuilderPool

    Attributes
    ----------
    defaults : dict of str to str
        Folders of the default kernels by workload, for comparison.
    built : dict of str to (Task, Candidate)
        What each folder holds.
    """

    def __init__(self, pool: BuilderPool):
        self.pool = pool
        self.defaults: dict[str, str] = {}
        self.built: dict[str, tuple[Task, Candidate]] = {}

    def build(self, wanted: Sequence[tuple[Task, Candidate]]) -> list[Artifact | Exception]:
        """Build candidates, several at a time."""
        futures = [self._start(*pair) for pair in wanted]
        results = [_result(future) for future in futures]
        for pair, result in zip(wanted, results):
            if isinstance(result, Artifact):
                self.built[result.folder] = pair
        return results

    def _start(self, task: Task, candidate: Candidate) -> concurrent.futures.Future[Artifact]:
        if task.workload not in self.defaults:  # Without it there is no tuning.
            default = self.pool.submit(task, DEFAULT)
            self.defaults[task.workload] = default.result().folder
        if candidate == DEFAULT:
            return settled(Artifact(self.defaults[task.workload]))
        return self.pool.submit(task, candidate)

    def discard(self, folder: str) -> None:
        """Delete a candidate that was measured."""
        task, _ = self.built[folder]
        if folder != self.defaults[task.workload]:
            shutil.rmtree(folder, ignore_errors=True)

    def job_of(self, folder: str) -> Job:
        """What to measure of the candidate in a folder."""
        task, _ = self.built[folder]
        return Job(
            folder, self.defaults[task.workload], task.shapes, task.layer.act_bits, task.channels
        )


def _result(future: concurrent.futures.Future[Artifact]) -> Artifact | Exception:
    try:
        return future.result()
    except Exception as error:  # Whatever LLVM or the linker say.
        return error


@derived_object
class Builder(ms.builder.PyBuilder):
    """MetaSchedule's interface to a `Workshop`.

    Parameters
    ----------
    workshop : Workshop
    tasks : dict of str to Task
        By workload.
    failed : callable
        Called with task, candidate and reason where one can't be built.
    """

    def __init__(
        self,
        workshop: Workshop,
        tasks: dict[str, Task],
        failed: Callable[[Task, Candidate, str], None],
    ):
        super().__init__()
        self.workshop, self.tasks, self.failed = workshop, tasks, failed

    def build(
        self, build_inputs: Sequence[ms.builder.BuilderInput]
    ) -> list[ms.builder.BuilderResult]:
        """Build candidates."""
        wanted = [(self.tasks[workload_key(i.mod)], candidate_of(i.mod)) for i in build_inputs]
        return [self._result(*pair, x) for pair, x in zip(wanted, self.workshop.build(wanted))]

    def _result(
        self, task: Task, candidate: Candidate, result: Artifact | Exception
    ) -> ms.builder.BuilderResult:
        if isinstance(result, Artifact):
            return ms.builder.BuilderResult(result.folder, None)
        reason = "took too long" if isinstance(result, TimeoutError) else first_line(result)
        self.failed(task, candidate, f"doesn't compile: {reason}")
        return ms.builder.BuilderResult(None, reason)
