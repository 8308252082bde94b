"""What `benchmarks.networks` measured, as tables: of one network, and of all of them."""

from __future__ import annotations

from collections.abc import Sequence

from .network_peers import INT8_PEERS, PEERS
from .results import BEST_INT8, OURS, print_table

ONE_THREAD = " 1 thread"  # Behind the names of what runs beside those with more.
SPEED_HEADINGS = ("", "ms", *(f"x {peer}" for peer in PEERS), f"x {BEST_INT8}")
SIZE_HEADINGS = (
    "",
    "file MB",
    "x smaller",
    "running MB",
    "loading MB",
    "build s",
    "x 1 thread",
)
FLOAT_FILE = "ort fp32"  # The contender whose file is all float32.
RIVALS = (BEST_INT8, "ort fp32")  # Over which all networks are summed up.


def title_of(network: dict) -> str:
    """Name of a network and the shape of its input."""
    return f"{network['network']}, {'x'.join(map(str, network['shape']))}"


def speed_rows(network: dict) -> list[list[str]]:
    """Cells of `SPEED_HEADINGS`, a row per contender."""
    seconds = _seconds(network)
    return [
        [
            name,
            f"{1e3 * own:.3f}",
            *(_ratio(seconds.get(peer), own) for peer in (*PEERS, BEST_INT8)),
        ]
        for name, own in seconds.items()
        if name != BEST_INT8
    ]


def size_table(network: dict) -> list[tuple[str, ...]]:
    """`SIZE_HEADINGS` and a row per contender, without columns of which nothing was measured."""
    columns = zip(SIZE_HEADINGS, *_size_rows(network))
    return list(zip(*(column for column in columns if not column[0] or any(column[1:]))))


def _size_rows(network: dict) -> list[list[str]]:
    seconds = _seconds(network)
    sizes = {record["name"]: record["file_bytes"] for record in network["contenders"]}
    return [_size_row(record, seconds, sizes.get(FLOAT_FILE)) for record in network["contenders"]]


def _size_row(record: dict, seconds: dict[str, float], float_bytes: int | None) -> list[str]:
    peaks = record.get("peak_bytes", {})
    single = seconds.get(record["name"] + ONE_THREAD)
    return [
        record["name"],
        f"{record['file_bytes'] / 1e6:.2f}",
        _ratio(float_bytes, record["file_bytes"]),
        *(f"{peaks[when] / 1e6:.1f}" if peaks else "" for when in ("running", "loading")),
        f"{record['build_seconds']:.1f}" if "build_seconds" in record else "",
        _ratio(single, record["seconds"]) if single else "",
    ]


def summary_headings(networks: Sequence[dict]) -> list[str]:
    """Headings of `summary_rows`."""
    return ["network", *_bits(networks)]


def summary_rows(networks: Sequence[dict], rival: str) -> list[list[str]]:
    """Speed over one of `RIVALS`: a row per network, a column per pair of bits."""
    rows = []
    for network in networks:
        seconds = _seconds(network)
        ours = (seconds.get(f"{OURS} {bits}") for bits in _bits(networks))
        rows.append([network["network"], *(_ratio(seconds.get(rival), own) for own in ours)])
    return rows


def _bits(networks: Sequence[dict]) -> list[str]:
    records = (record for network in networks for record in network["contenders"])
    return list(dict.fromkeys(record["bits"] for record in records if "bits" in record))


def _seconds(network: dict) -> dict[str, float]:
    """Seconds a run by contender; the fastest peer in integers under a name of its own."""
    seconds = {record["name"]: record["seconds"] for record in network["contenders"]}
    int8 = [seconds[peer] for peer in INT8_PEERS if peer in seconds]
    return seconds | ({BEST_INT8: min(int8)} if int8 else {})


def _ratio(peer: float | None, own: float | None) -> str:
    """How many times as fast, or as small, as a peer; a dash where one of them is left out."""
    return f"{peer / own:.2f}" if peer and own else "-"


def left_out_lines(network: dict) -> list[str]:
    """Say of each contender that couldn't take part why."""
    return [
        f"{network['network']}: {name} is left out: {reason}"
        for name, reason in network["left_out"].items()
    ]


def print_network(network: dict) -> None:
    """Print speeds and sizes of a network's contenders, and who is left out."""
    print_table(title_of(network), SPEED_HEADINGS, speed_rows(network))
    headings, *rows = size_table(network)
    print_table(f"{network['network']}: sizes, builds", headings, rows)
    for line in left_out_lines(network):
        print(line, flush=True)


def print_kernels(network: dict) -> None:
    """Print what the kernels of ours take, the slowest first."""
    for record in network["contenders"]:
        kernels = record.get("kernels", {})
        total = sum(kernels.values())
        slowest_first = sorted(kernels.items(), key=lambda item: -item[1])
        rows = [[k, f"{1e6 * s:.1f}", f"{100 * s / total:.1f}"] for k, s in slowest_first]
        if rows:
            print_table(f"{network['network']}, {record['name']}", ("kernel", "us", "%"), rows)


def print_summary(networks: Sequence[dict]) -> None:
    """Print a table of networks by bits for each of `RIVALS`."""
    for rival in RIVALS:
        headings, rows = summary_headings(networks), summary_rows(networks, rival)
        print_table(f"speed over {rival}", headings, rows)
