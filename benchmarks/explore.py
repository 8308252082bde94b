"""Sizes of the accelerator: LUTs against cycles of a network.

    python -m benchmarks.explore --network resnet18 --bits 2,2 --dm 4 8 16 --dn 4 8 --picture a.svg

Cycles are those of the cycle model. LUTs are Yosys's where it ran before with the same Verilog;
with ``--synthesize N`` it runs for up to N more sizes, squares and small ones first. Those of
other sizes are fitted to them: a constant, and a share of DM DN, DM and DN each. The fit and its
errors are printed.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from tvm_bitenc.accelerator import Accelerator
from tvm_bitenc.cli.models import read_model
from tvm_bitenc.data import data_folder
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.report.figure import new_figure, write_figure
from tvm_bitenc.simulate.programs import parts_of
from tvm_bitenc.target import load_target
from tvm_bitenc.vta.counters import predicted
from tvm_bitenc.vta.offloaded import Offloaded
from tvm_bitenc.vta.verilator import cache_folder

from .results import Bits, bits, print_table

ROOMY = dict(act_rows=8192, weight_rows=8192, param_rows=4096, residual_rows=8192, out_rows=8192)
FEATURES = ("DM DN", "DM", "DN", "1")


@dataclass(frozen=True)
class Point:
    """One size of the accelerator.

    Parameters
    ----------
    accelerator : Accelerator
    cycles : int
        Of all layers that fit it.
    cpu_layers : int
        Layers that don't.
    utilization : float
    luts : float or None
    is_fitted : bool
        Whether `luts` come from the fit instead of Yosys.
    """

    accelerator: Accelerator
    cycles: int
    cpu_layers: int
    utilization: float
    luts: float | None = None
    is_fitted: bool = True

    @property
    def name(self) -> str:
        """DM x DN."""
        return f"{self.accelerator.channels}x{self.accelerator.pixels}"


def network(name: str, pair: Bits) -> list[Offloaded]:
    """Layers of a network that an accelerator with large buffers runs, for one sample."""
    target = load_target("vta")
    target = replace(target, accelerator=replace(target.accelerator, **ROOMY))
    if Path(name).suffix:
        return parts_of(read_model(Path(name)), target)
    import torch

    from tvm_bitenc import from_torch
    from tvm_bitenc.nn import DigitsCNN, ResNet18

    kind, shape = {"digits": (DigitsCNN, (1, 1, 8, 8)), "resnet18": (ResNet18, (1, 3, 224, 224))}[
        name
    ]
    return parts_of(from_torch(kind(*pair).eval(), (torch.zeros(shape),)), target)


def measure(parts: Sequence[Offloaded], accelerator: Accelerator) -> Point:
    """Cycles of a network by the cycle model."""
    cycles = macs = refused = 0
    for part in parts:
        try:
            program = part.program(accelerator)
        except UnsupportedError:
            refused += 1
            continue
        cycles += predicted(program, accelerator).cycles
        macs += program.macs
    peak = cycles * accelerator.macs_per_cycle
    return Point(accelerator, cycles, refused, macs / peak if peak else 0.0)


def synthesized(accelerator: Accelerator, may_run: bool) -> int | None:
    """LUTs by Yosys, from the cache where it ran before; None otherwise."""
    key = hashlib.sha256(repr(asdict(accelerator)).encode())
    for source in sorted((data_folder("targets") / "vta" / "rtl").glob("*.v*")):
        key.update(source.read_bytes())
    path = cache_folder().parent / "yosys" / f"{key.hexdigest()[:24]}.json"
    if path.is_file():
        return json.loads(path.read_text())["luts"]
    if not may_run:
        return None
    from tvm_bitenc.vta.synthesis import synthesize

    area = synthesize(accelerator)["accelerator"]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(area)))
    temporary.replace(path)
    return area.luts


def features(accelerator: Accelerator) -> list[int]:
    """What LUTs are fitted by."""
    dm, dn = accelerator.channels, accelerator.pixels
    return [dm * dn, dm, dn, 1]


def with_luts(points: Sequence[Point], runs: int = 0) -> tuple[list[Point], np.ndarray | None]:
    """Add LUTs to points, and return the fit; None where the figures don't determine one."""
    found: dict[Accelerator, int] = {}
    for accelerator in sorted(
        dict.fromkeys(point.accelerator for point in points),
        key=lambda each: (max(each.channels, each.pixels), each.macs_per_cycle, each.channels),
    ):
        cached = synthesized(accelerator, may_run=False)
        if cached is None and runs > 0:
            cached, runs = synthesized(accelerator, may_run=True), runs - 1
        if cached is not None:
            found[accelerator] = cached
    fit = None
    rows = np.array([features(a) for a in found])
    if found and np.linalg.matrix_rank(rows) == len(FEATURES):
        fit = np.linalg.lstsq(rows, np.array(list(found.values())), rcond=None)[0]
    return [_with_luts(point, found, fit) for point in points], fit


def _with_luts(point: Point, found: dict[Accelerator, int], fit: np.ndarray | None) -> Point:
    if point.accelerator in found:
        return replace(point, luts=found[point.accelerator], is_fitted=False)
    if fit is None:
        return point
    return replace(point, luts=float(np.dot(features(point.accelerator), fit)))


def draw(points: Sequence[Point], title: str, path: Path) -> Path:
    """Draw LUTs against cycles; sizes that none beats in both are joined."""
    shown = [point for point in points if point.luts is not None]
    figure, axis = new_figure(7, 4.5)
    for is_fitted, marker in ((False, "o"), (True, "x")):
        some = [p for p in shown if p.is_fitted == is_fitted]
        label = "LUTs fitted" if is_fitted else "LUTs by Yosys"
        axis.plot([p.luts for p in some], [p.cycles for p in some], marker, label=label)
    for point in shown:
        axis.annotate(point.name, (point.luts, point.cycles), xytext=(4, 4),
                      textcoords="offset points", fontsize=7)  # fmt: skip
    best = front(shown)
    axis.plot([p.luts for p in best], [p.cycles for p in best], color="gray", linewidth=0.8)
    axis.set(xscale="log", yscale="log", xlabel="LUTs", ylabel="cycles", title=title)
    axis.legend()
    return write_figure(figure, path)


def front(points: Sequence[Point]) -> list[Point]:
    """Points with fewer cycles than all that have no more LUTs, by LUTs."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.luts, p.cycles)):
        if not best or point.cycles < best[-1].cycles:
            best.append(point)
    return best


def sizes(arguments: argparse.Namespace) -> list[Accelerator]:
    """Every combination of the sizes asked for."""
    base = load_target("vta").accelerator
    chosen = itertools.product(arguments.dm, arguments.dn, arguments.buffers)
    return [
        replace(
            base,
            channels=dm,
            pixels=dn,
            act_rows=int(base.act_rows * scale),
            weight_rows=int(base.weight_rows * scale),
            out_rows=int(base.out_rows * scale),
        )
        for dm, dn, scale in chosen
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, the fit, and draw the picture."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--network", default="digits", help="digits, resnet18 or a model file")
    made.add_argument("--bits", type=bits, default=(2, 2), metavar="M,K")
    made.add_argument("--dm", type=int, nargs="+", default=[2, 4, 8, 16])
    made.add_argument("--dn", type=int, nargs="+", default=[2, 4, 8])
    made.add_argument("--buffers", type=float, nargs="+", default=[1.0], help="scale of their rows")
    made.add_argument(
        "--synthesize", type=int, default=0, metavar="N", help="runs of Yosys, at most"
    )
    made.add_argument("--picture", type=Path, help="LUTs against cycles: .svg, .png or .pdf")
    options = made.parse_args(arguments)
    parts = network(options.network, options.bits)
    points, fit = with_luts([measure(parts, a) for a in sizes(options)], options.synthesize)
    title = f"{options.network} W{options.bits[0]}A{options.bits[1]}, {len(parts)} layers"
    headings = ["DM x DN", "act", "weight", "cycles", "utilization", "on the CPU", "LUTs", "by"]
    print_table(title, headings, map(_cells, points))
    if fit is not None:
        print("LUTs fitted: " + " + ".join(f"{k:.1f} {name}" for k, name in zip(fit, FEATURES)))
        by_yosys = [point for point in points if not point.is_fitted]
        if len(by_yosys) == len(FEATURES):
            print("  as many figures as terms: only more runs of Yosys show its error")
            by_yosys = []
        for point in by_yosys:
            error = np.dot(features(point.accelerator), fit) / point.luts - 1
            print(f"  {point.name}: {100 * error:+.1f} % of Yosys's {point.luts:,}")
    elif not all(point.luts for point in points):
        print(f"LUTs need {len(FEATURES)} runs of Yosys: --synthesize {len(FEATURES)}")
    if options.picture:
        print(draw(points, title, options.picture))
    return 0


def _cells(point: Point) -> list[str]:
    accelerator = point.accelerator
    luts = "" if point.luts is None else f"{point.luts:,.0f}"
    how = "" if point.luts is None else "fit" if point.is_fitted else "Yosys"
    return [
        point.name,
        f"{accelerator.act_rows:,}",
        f"{accelerator.weight_rows:,}",
        f"{point.cycles:,}",
        f"{100 * point.utilization:.1f} %",
        str(point.cpu_layers),
        luts,
        how,
    ]


if __name__ == "__main__":
    raise SystemExit(main())
