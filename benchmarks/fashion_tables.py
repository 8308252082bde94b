"""Tables of `benchmarks.fashion`: what each network reaches, and what should hold between them."""

from __future__ import annotations

from collections.abc import Sequence

HEADINGS = (
    "network",
    "test, %",
    "below float",
    "validation, %",
    "same as torch",
    "bytes",
    "bits/weight",
    "new codewords",
    "CPU s",
)
BAR_HEADINGS = ("network", "beside", "points below", "should be at most", "holds")
BARS = (  # What may be lost on the test images, in points; less than 0 is to be gained.
    ("W4A4", "float", 0.5),
    ("W2A2", "float", 1.0),
    ("W1A1", "float", 3.5),
    ("W1A2/4", "W1A2", 0.5),
    ("W1A2/nearest32", "W1A2", 1.5),
    ("W1A2/permute32", "W1A2/nearest32", 0.0),
    ("PA4x5", "float", 0.5),
    ("PA4x5", "W2A2", -0.5),
    ("W1A1+planes", "W1A1", 1.0),
    ("W1A1+planes", "W1A1+sign", -3.0),
)


def row_of(record: dict, full: dict) -> tuple[str, ...]:
    """Cells of a record, as `HEADINGS` names them, beside the float network's."""
    cells = (
        record["network"],
        f"{100 * record['accuracy']:.2f}",
        f"{100 * (full['accuracy'] - record['accuracy']):.2f}",
        f"{100 * record['validation']:.2f}",
    )
    seconds = f"{record['seconds']:.0f}"
    if "stored_bytes" not in record:
        return (*cells, "", "", "", "", seconds)
    moved = f"{record['new_codewords']} of {record['codewords']}" if "codewords" in record else ""
    return (
        *cells,
        f"{record['same_predictions']:,} of {record['images']:,}",
        f"{record['stored_bytes']:,}",
        f"{record['bits_per_weight']:.2f}",
        moved,
        seconds,
    )


def bar_rows(records: Sequence[dict]) -> list[tuple[str, ...]]:
    """Rows of `BARS` between networks that were trained, as `BAR_HEADINGS` names the cells."""
    reached = {record["network"]: round(100 * record["accuracy"], 6) for record in records}
    lost = {
        (name, other, limit): reached[other] - reached[name]
        for name, other, limit in BARS
        if name in reached and other in reached
    }
    return [
        (name, other, f"{points:.2f}", f"{limit:.1f}", "yes" if points <= limit + 1e-9 else "no")
        for (name, other, limit), points in lost.items()
    ]
