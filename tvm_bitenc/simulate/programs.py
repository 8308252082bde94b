"""What programs cost, by the cycle model or counted by the Verilog."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from ..accelerator import Accelerator
from ..target import Target
from ..transform.pipeline import default_pipeline
from ..transform.rewrite import Graph, is_external
from ..transform.visit import visit_calls
from ..vta.counters import predicted_layers
from ..vta.offloaded import Offloaded, program_of
from ..vta.program import Layer, Program
from ..vta.region import region_of
from ..vta.verilator import VerilatorSimulator
from ..vta.work import Cycles


def parts_of(mod: tvm.IRModule, target: Target) -> list[Offloaded]:
    """What the target's accelerator runs of a module, in order."""
    return [part for function in _functions_of(mod, target) for part in region_of(function).layers]


def _functions_of(mod: tvm.IRModule, target: Target) -> list[relax.Function]:
    mod = default_pipeline(target).until("bitenc.FuseFloat").run(mod)
    found: list[relax.Function] = []

    def note(call: relax.Call, _graph: Graph) -> None:
        if isinstance(call.op, tvm.ir.GlobalVar) and is_external(mod[call.op]):
            found.append(mod[call.op])

    visit_calls(mod, note)
    return found


def programs_of(mod: tvm.IRModule, target: Target) -> list[Program]:
    """Programs of a module, for one sample, in the order in which they run."""
    return [program_of(function)[0] for function in _functions_of(mod, target)]


def counters(program: Program, accelerator: Accelerator, simulator: str) -> Cycles:
    """Counters of one run; see `layer_counters`."""
    (_, first), *rest = layer_counters(program, accelerator, simulator)
    return sum((cycles for _, cycles in rest), start=first)


def layer_counters(
    program: Program, accelerator: Accelerator, simulator: str
) -> list[tuple[Layer, Cycles]]:
    """Counters of each layer in one run; the Verilog's don't depend on the values that it reads.

    Parameters
    ----------
    program : Program
    accelerator : Accelerator
    simulator : {"functional", "verilog"}
        The former has no clock: then they are the cycle model's.
    """
    if simulator != "verilog":
        return list(zip(program.layers, predicted_layers(program, accelerator)))
    memory = program.image(np.zeros(program.operand_words, np.uint64))
    return VerilatorSimulator(accelerator, memory).run_layers(program)
