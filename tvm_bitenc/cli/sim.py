"""``bitenc sim``: cycles of a network or a made-up layer on the accelerator, and a picture."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..errors import BitencError
from .explain import text_table
from .models import read_model

if TYPE_CHECKING:
    from ..accelerator import Accelerator
    from ..target import Target
    from ..vta.program import Program
    from ..vta.work import Work


def sim(
    file: Annotated[
        Path | None, typer.Argument(help="An .onnx or .pt2 file; without one, --layer.")
    ] = None,
    layer: Annotated[
        str, typer.Option(help="Kernel, channels, output size and stride of a layer.")
    ] = "3x3 64->64 @56",
    bits: Annotated[str, typer.Option(help="Bits of the layer's weights and inputs.")] = "W2A2",
    target: Annotated[str, typer.Option(help="vta, or a TOML file like those of it.")] = "vta",
    simulator: Annotated[
        str, typer.Option(help="functional: by the cycle model; verilog: counted.")
    ] = "functional",
    trace: Annotated[
        Path | None, typer.Option(help="Draw load, compute and store over time to this picture.")
    ] = None,
    assembly: Annotated[bool, typer.Option(help="Print the instructions.")] = False,
    shape: Annotated[
        list[str] | None, typer.Option(help="Shape of a dynamic input, as x=1,3,224,224.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how many cycles the accelerator takes for one sample, and draw what it does when."""
    from ..simulate.picture import draw_timeline
    from ..simulate.programs import programs_of
    from ..simulate.sample import sample_layer
    from ..vta.compile_layer import compile_conv

    machine, accelerator = _accelerator(target, simulator)
    if file is None:
        static = sample_layer(layer, bits)
        programs = [compile_conv(static, accelerator)]
    else:
        programs = programs_of(read_model(file, shape or ()), machine)
    if trace is not None:
        draw_timeline(programs, accelerator, trace)
    rows = [row for x in programs for row in _works(x, accelerator, machine.simulator)]
    content = _content(rows, machine, accelerator)
    if as_json:
        print(json.dumps(content, indent=2))
        return
    if assembly:
        for program in programs:
            print(_assembly(program))
    _print(rows, machine, content)


def _accelerator(target: str, simulator: str) -> tuple[Target, Accelerator]:
    from ..target import load_target

    machine = load_target(target)
    if machine.accelerator is None:
        raise BitencError(
            f"target {target!r}", "is no accelerator", "Use vta, or a file of its kind"
        )
    return load_target(machine, simulator=simulator), machine.accelerator


def _works(program: Program, accelerator: Accelerator, simulator: str) -> list[tuple[str, Work]]:
    """Name and cost of each layer."""
    from ..simulate.programs import layer_counters
    from ..vta.work import work_of

    peak, is_measured = accelerator.macs_per_cycle, simulator == "verilog"
    counted = layer_counters(program, accelerator, simulator)
    return [(layer.name, work_of(x, layer.macs, peak, is_measured)) for layer, x in counted]


def _assembly(program: Program) -> str:
    """Instructions of each layer under its name."""
    from ..vta.isa import disassemble

    lines, first = [], 0
    for layer in program.layers:
        last = first + layer.instructions
        lines.append(f"# {layer.name}\n{disassemble(program.instructions[first:last])}")
        first = last
    return "\n".join(lines)


def _content(rows: list[tuple[str, Work]], machine: Target, accelerator: Accelerator) -> dict:
    cycles = sum(work.cycles for _, work in rows)
    peak = cycles * accelerator.macs_per_cycle
    return {
        "target": machine.name,
        "simulator": machine.simulator,
        "layers": [{"name": name, **asdict(work)} for name, work in rows],
        "cycles": cycles,
        "utilization": sum(work.binary_macs for _, work in rows) / peak if peak else 0.0,
        "dram_bytes": sum(work.dram_bytes for _, work in rows),
    }


def _print(rows: list[tuple[str, Work]], machine: Target, content: dict) -> None:
    headings = ["layer", "cycles", "utilization", "DRAM bytes", "load", "compute", "store"]
    cells = [
        [name, *_numbers(asdict(work)), f"{work.load_cycles:,}", f"{work.compute_cycles:,}",
         f"{work.store_cycles:,}"]
        for name, work in rows
    ]  # fmt: skip
    cells.append(["total", *_numbers(content), "", "", ""])
    how = "counted by the Verilog" if machine.simulator == "verilog" else "by the cycle model"
    Console().print(
        text_table(f"Cycles of one sample on {machine.name}, {how}", headings, cells, 6)
    )


def _numbers(values: dict) -> list[str]:
    share = f"{100 * values['utilization']:.1f} %"
    return [f"{values['cycles']:,}", share, f"{values['dram_bytes']:,}"]
