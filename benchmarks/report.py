"""Write results as tables into docs/benchmarks.md.

    python -m benchmarks.layers --json build/layers.json
    python -m benchmarks.networks --json build/networks.json
    python -m benchmarks.report build/layers.json build/networks.json

The text around the markers is left alone. Results of another CPU stand beside those that are there;
results of the same CPU and command replace them.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

from . import arm, assembly, codewords, fashion_tables, layers, network_tables, tiles

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
SECTION = "<!-- results: {key} -->\n{body}\n<!-- end of results -->\n"
ANY_SECTION = re.compile(r"<!-- results: (.*?) -->\n.*?\n<!-- end of results -->\n", re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files of the command line into the page."""
    parser = argparse.ArgumentParser(description="Write results as tables into the docs.")
    parser.add_argument("files", type=Path, nargs="+", help="written by --json")
    parser.add_argument("--page", type=Path, default=PAGE, help="default docs/benchmarks.md")
    options = parser.parse_args(arguments)
    text = options.page.read_text(encoding="utf-8")
    for path in options.files:
        text = with_results(text, json.loads(path.read_text(encoding="utf-8")))
    options.page.write_text(text, encoding="utf-8")


def with_results(text: str, results: dict) -> str:
    """Return the page with one file's results in place of those of the same key, or at its end."""
    key = _command(results)
    if "arm" not in results:  # What QEMU counts is the same on any machine.
        key += f" on {results['machine']['cpu']}"
    section = SECTION.format(key=key, body=markdown(results))
    if key in ANY_SECTION.findall(text):
        return ANY_SECTION.sub(lambda m: section if m[1] == key else m[0], text)
    return f"{text.rstrip()}\n\n{section}"


def markdown(results: dict) -> str:
    """Tables of one file's results, under a heading with the CPU's name."""
    machine = results["machine"]
    if "loops" in results:
        rows = assembly.rows_of(results["loops"])
        parts = ["### Instructions of inner loops", f"    {_command(results)}"]
        return "\n\n".join([*parts, table(assembly.HEADINGS, rows)])
    if "arm" in results:
        return "\n\n".join(_arm_parts(results))
    what, tables = next(kind for key, kind in KINDS.items() if key in results)
    threads = f"{results['threads']} thread{'s' if results['threads'] > 1 else ''}"
    variables = _command(results).partition("python -m")[0].strip()
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    rates = machine["rates"] or "unknown"
    parts = [
        ", ".join(filter(None, [f"### {what}, {machine['cpu']}, {threads}", variables])),
        f"{machine['clock_ghz']:.2f} GHz measured; rates {rates}; {versions}.",
        f"    {_command(results)}",
        *tables(results),
    ]
    return "\n\n".join(parts)


def _arm_parts(results: dict) -> list[str]:
    return [
        f"### ARM: whole layer {results['layer']}; * is what auto takes",
        f"    {_command(results)}",
        table(arm.HEADINGS, arm.rows_of(results["arm"])),
        "Published kernels, W1A1, 64-bit ARM:",
        table(arm.PEER_HEADINGS, arm.peer_rows()),
    ]


def _layer_tables(results: dict) -> list[str]:
    records = results["layers"]
    parts = [
        f"Geometric mean of the {layers.MEAN_KIND} layers:",
        table(layers.MEAN_HEADINGS, layers.mean_rows(records)),
    ]
    for bits in dict.fromkeys(record["bits"] for record in records):
        rows = [layers.layer_row(record) for record in records if record["bits"] == bits]
        parts += [f"{bits}, GMAC/s and ratios:", table(layers.LAYER_HEADINGS, rows)]
    return parts


def _network_tables(results: dict) -> list[str]:
    networks = results["networks"]
    parts = []
    for rival in network_tables.RIVALS:
        rows = network_tables.summary_rows(networks, rival)
        headings = network_tables.summary_headings(networks)
        parts += [f"Speed over {rival}:", table(headings, rows)]
    for network in networks:
        headings, *rows = network_tables.size_table(network)
        parts += [
            f"{network_tables.title_of(network)}:",
            table(network_tables.SPEED_HEADINGS, network_tables.speed_rows(network)),
            table(headings, rows),
            *network_tables.left_out_lines(network),
        ]
    return parts


def _tile_tables(results: dict) -> list[str]:
    return [table(tiles.HEADINGS, list(map(tiles.row_of, results["tiles"])))]


def _codeword_tables(results: dict) -> list[str]:
    return [table(codewords.HEADINGS, list(map(codewords.row_of, results["codewords"])))]


def _fashion_tables(results: dict) -> list[str]:
    records = results["fashion"]
    rows = [fashion_tables.row_of(record, records[0]) for record in records]
    return [
        table(fashion_tables.HEADINGS, rows),
        "What should hold:",
        table(fashion_tables.BAR_HEADINGS, fashion_tables.bar_rows(records)),
    ]


KINDS = {
    "layers": ("Layers", _layer_tables),
    "networks": ("Networks", _network_tables),
    "tiles": ("Layers made of tiles", _tile_tables),
    "codewords": ("Layers of few kernels", _codeword_tables),
    "fashion": ("Fashion-MNIST", _fashion_tables),
}


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown table; the first column is text, the others numbers."""
    rule = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, rule, *rows))


def _command(results: dict) -> str:
    """Return the command that measured, without the name of its file."""
    return re.sub(r" --json[ =]\S+", "", results["command"])


if __name__ == "__main__":
    main()
