"""``bitenc targets``: what one can compile for, and what runs here."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import TargetError

if TYPE_CHECKING:
    from ..target import Target

BITS = ((1, 1), (1, 2), (2, 2), (4, 4), (8, 8))  # That strategies are shown for.
CHANNELS, SIZE = 256, 14  # Of the layer that they are chosen for.
HEADINGS = ("target", "triple", "rule sets", "auto at", "runs here", "description")


def targets(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names or TOML files; default all that ship.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all as JSON.")] = False,
) -> None:
    """List targets: instruction sets, strategies, and what runs their programs here.

    A target of your own is a TOML file like those in targets/; give its path as the target.
    """
    from ..target import load_target, target_names

    found = [describe(load_target(name)) for name in names or target_names()]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = Table(title="Targets, and what auto takes for a 3x3 layer", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, overflow="fold")
    for row in found:
        chosen = "\n".join(f"{bits} {strategy}" for bits, strategy in row["auto"].items())
        cells = row["name"], row["triple"], "\n".join(row["rules"]), chosen, row["runs_here"]
        table.add_row(*map(Text, (*cells, row["description"])), end_section=True)
    Console().print(table)


def describe(target: Target) -> dict:
    """What a target supports, as JSON holds it.

    Parameters
    ----------
    target : Target

    Returns
    -------
    dict
        ``name``, ``description``, ``triple`` (of the linker), ``cpu``, ``rules`` (schedule rule
        sets, in the order in which they are tried), ``strategies``, ``auto`` (which of them it
        takes for a 3x3 layer of 256 channels, by bits), ``runs_here`` and ``emulator``.

    Raises
    ------
    TargetError
        If there is no such rule set.
    """
    from ..schedule import rule_sets_of

    costs = {f"W{m}A{k}": _costs(m, k, target) for m, k in BITS}
    if target.accelerator is not None:  # It has one way; the CPU's are for what it leaves.
        costs = {}
    return {
        "name": target.name,
        "description": target.description,
        "triple": target.triple,
        "cpu": str(target.tvm_target.attrs.get("mcpu", "")),
        "rules": [rules.name for rules in rule_sets_of(target)],
        "strategies": sorted(set().union(*costs.values())),
        "auto": {bits: min(cost, key=cost.__getitem__) for bits, cost in costs.items()},
        "runs_here": _runs_here(target),
        "emulator": target.emulator,
    }


def _costs(weight_bits: int, act_bits: int, target: Target) -> dict[str, float]:
    import numpy as np

    from ..branches import BranchGeometry
    from ..codewords import any_codes
    from ..layer import ConvLayer
    from ..schedule import strategy_costs

    act, weight = (tuple(2**bit for bit in range(bits)) for bits in (act_bits, weight_bits))
    codes = any_codes((CHANNELS, CHANNELS, 3, 3), weight_bits)
    geometry = BranchGeometry(act, weight, 0, padding=(1, 1, 1, 1))
    offset = np.zeros(CHANNELS, np.int32)
    layer = ConvLayer("layer", (1, SIZE, SIZE, CHANNELS), codes, offset, geometry)
    return strategy_costs(layer, target)


def _runs_here(target: Target) -> str:
    """How programs of a target run on this machine, or why they don't."""
    from ..host import check_runs_here

    if target.accelerator is not None:
        return "simulated"
    try:
        check_runs_here(target)
        return "natively"
    except TargetError as error:
        if not target.emulator:
            return f"no: {error.cause}"
    program = target.emulator.split()[0]
    return target.emulator if shutil.which(program) else f"not yet: {program} isn't installed"
