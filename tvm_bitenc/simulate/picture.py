"""Pictures of time: what load, compute and store do when."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..accelerator import BUFFERS, Accelerator
from ..report.figure import new_figure, write_figure
from ..vta import isa
from ..vta.cost import timeline
from ..vta.counters import predicted_layers
from ..vta.functional import MODULES
from ..vta.program import Program

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = dict(zip((*BUFFERS, "conv", "pool", "store"), (f"C{i}" for i in range(10))))


def draw_timeline(programs: Sequence[Program], accelerator: Accelerator, path: Path) -> Path:
    """Draw programs one after another, by the cycle model; the file's ending gives its format.

    Parameters
    ----------
    programs : sequence of Program
    accelerator : Accelerator
    path : Path
        ``.svg``, ``.png`` or ``.pdf``.
    """
    figure, axis = new_figure(12, 2.6)
    start = 0
    for program in programs:
        _draw_program(axis, program, accelerator, start)
        for layer, cycles in zip(program.layers, predicted_layers(program, accelerator)):
            axis.axvline(start, color="black", linewidth=0.5)
            axis.text(start, len(MODULES) - 0.4, layer.name, fontsize=7, rotation=20)
            start += cycles.cycles
    axis.set_yticks(range(len(MODULES)), MODULES)
    axis.set_xlim(0, start)
    axis.set_xlabel("cycles")
    shown = {label: color for label, color in _COLORS.items() if label != "out"}
    handles = [axis.barh(0, 0, color=color, label=label) for label, color in shown.items()]
    axis.legend(handles=handles, ncols=len(shown), fontsize=7, loc="upper center",
                bbox_to_anchor=(0.5, -0.25))  # fmt: skip
    return write_figure(figure, path)


def _draw_program(axis: Axes, program: Program, accelerator: Accelerator, start: int) -> None:
    """Draw one program from a cycle on."""
    spans = timeline(program.instructions, accelerator)
    bars: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for span in spans:
        kind = _kind(program.instructions[span.index])
        if kind in _COLORS:
            part = bars.setdefault((span.module, kind), [])
            part.append((start + span.start, span.end - span.start))
    for (module, kind), part in bars.items():
        axis.broken_barh(part, (MODULES.index(module) - 0.35, 0.7), color=_COLORS[kind])


def _kind(instruction: isa.Instruction) -> str:
    if isinstance(instruction, isa.Load):
        return BUFFERS[instruction.buffer]
    return instruction.name
