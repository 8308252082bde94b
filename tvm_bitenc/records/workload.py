"""Keys of records: what a layer is to a kernel, and what a target is to a measurement."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import tvm
from tvm import relax

from ..branches import BranchGeometry, Matrix
from ..decode import INT32_MAX
from ..features import instructions, kernel_features
from ..layer import ConvLayer, four_sides, height_width
from ..op.packed import conv_layer_of, takes_bytes, takes_codes
from ..schedule import own_features
from ..target import Target

_NUMBER = r"[0-9]{1,10}"
_PLANES = rf"[1-9](\({_NUMBER}(,{_NUMBER}){{0,7}}\))?"
_ROW = rf"-?{_NUMBER}(,-?{_NUMBER}){{0,7}}"
PATTERN = re.compile(
    rf"conv2d (?P<batch>n|{_NUMBER})x(?P<height>{_NUMBER})x(?P<width>{_NUMBER})"
    rf"x(?P<channels>{_NUMBER})->(?P<out>{_NUMBER}) (?P<kernel>{_NUMBER}x{_NUMBER})"
    rf" W(?P<weight>{_PLANES})A(?P<act>{_PLANES})"
    rf" stride=(?P<strides>{_NUMBER},{_NUMBER}) padding=(?P<padding>{_NUMBER}(,{_NUMBER}){{3}})"
    rf" dilation=(?P<dilation>{_NUMBER},{_NUMBER}) groups=(?P<groups>{_NUMBER})"
    r" from=(?P<source>bytes|codes|planes) to=(?P<ending>[AB][1-8]|int32|floats:[\w+.]{1,1000})"
    rf" offsets=(?P<act_offset>-?{_NUMBER}),(?P<weight_offset>[01])"
    rf"( branches=(?P<branches>{_ROW}(;{_ROW}){{0,7}}))?"
    rf"( copies=(?P<copies>{_NUMBER}))?( rows=(?P<rows>{_NUMBER}))?"
    rf"( codewords=(?P<codewords>16|32|64))?"
    rf" threads=(?P<threads>{_NUMBER}|pool)"
)


@dataclass(frozen=True)
class Workload:
    """A packed convolution: all that the speed of its kernel depends on but the CPU.

    Names and values of weights aren't part of it, nor is the strategy: that is tuned.

    Parameters
    ----------
    batch : str
        ``"n"`` where it is dynamic.
    height, width, channels, out_channels : int
    kernel : (height, width)
    geometry : BranchGeometry
    source : {"planes", "codes", "bytes"}
    ending : str
        ``A2`` for planes of codes of 2 bits, ``B2`` for bytes of such, ``int32``, or ``floats:``
        and the names of the steps.
    has_weight_offset : bool
    threads : str
        A number, or ``"pool"`` where TVM's pool decides.
    copies : int
        See `ConvLayer`; the text has it where it isn't 1.
    weight_rows : int
        Rows of weights that channels share in another order; 0, and not in the text, elsewhere.
    codewords : int
        Most kernels that its indices tell apart, see `codewords.py`; 0, and not in the text, where
        they are too many.
    """

    batch: str
    height: int
    width: int
    channels: int
    out_channels: int
    kernel: tuple[int, int]
    geometry: BranchGeometry
    source: str
    ending: str
    has_weight_offset: bool
    threads: str
    copies: int = 1
    weight_rows: int = 0
    codewords: int = 0

    def __str__(self) -> str:
        geometry = self.geometry
        parts = [
            f"conv2d {self.batch}x{self.height}x{self.width}x{self.channels}->{self.out_channels}",
            "x".join(map(str, self.kernel)),
            f"W{_planes(geometry.weight_coefficients)}A{_planes(geometry.act_coefficients)}",
            f"stride={_numbers(geometry.strides)}",
            f"padding={_numbers(geometry.padding)}",
            f"dilation={_numbers(geometry.dilation)}",
            f"groups={geometry.groups}",
            f"from={self.source}",
            f"to={self.ending}",
            f"offsets={geometry.act_offset},{int(self.has_weight_offset)}",
            *([] if geometry.branches is None else [f"branches={_matrix(geometry.branches)}"]),
            *([f"copies={self.copies}"] if self.copies > 1 else []),
            *([f"rows={self.weight_rows}"] if self.weight_rows else []),
            *([f"codewords={self.codewords}"] if self.codewords else []),
            f"threads={self.threads}",
        ]
        return " ".join(parts)

    @property
    def distinct(self) -> int:
        """Rows of weights, each of which is summed once."""
        return self.weight_rows or self.out_channels // self.copies

    @property
    def out_bits(self) -> int:
        """Bits of the codes it ends in, 0 for other endings."""
        return int(self.ending[1:]) if self.ending[0] in "AB" else 0

    @property
    def steps(self) -> list[str]:
        """Names of the float steps it ends in."""
        is_float = self.ending.startswith("floats:")
        return self.ending.removeprefix("floats:").split("+") if is_float else []


def workload_of(call: relax.Call, target: Target) -> str:
    """Text of the workload that a call to `packed_conv2d` is."""
    layer = conv_layer_of(call)
    batch, height, width, channels = layer.input_shape
    found = Workload(
        "n" if layer.has_dynamic_batch else str(batch),
        height,
        width,
        channels,
        layer.out_channels,
        layer.kernel_size,
        layer.geometry,
        "bytes" if takes_bytes(call) else "codes" if takes_codes(call) else "planes",
        _ending(layer),
        layer.has_act_sum,
        str(target.threads or "pool"),
        layer.copies,
        len(layer.weight_codes) if layer.channel_rows else 0,
        0 if layer.codewords is None else 1 << layer.codewords.index_bits,
    )
    return str(found)


@lru_cache(maxsize=4096)
def parse_workload(text: str) -> Workload:
    """Inverse of `str`.

    Raises
    ------
    ValueError
        If it isn't the text of a workload.
    """
    found = PATTERN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:200]!r} isn't a workload")
    height, width, channels, out_channels, groups = (
        _bounded(found[name], 1) for name in ("height", "width", "channels", "out", "groups")
    )
    act, weight = (_coefficients(found[name]) for name in ("act", "weight"))
    strides, dilation = (height_width(_integers(found[x], 1)) for x in ("strides", "dilation"))
    padding = four_sides(_integers(found["padding"], 0))
    if channels % groups or out_channels % groups:
        raise ValueError(f"{groups} groups don't divide {channels} and {out_channels} channels")
    copies = _bounded(found["copies"] or "1", 1)
    if out_channels % copies:
        raise ValueError(f"{copies} copies don't divide {out_channels} channels")
    weight_rows = _bounded(found["rows"] or "0", 0)
    if weight_rows > out_channels or (weight_rows and copies > 1):
        raise ValueError(
            f"{out_channels} channels in {copies} copies don't share {weight_rows} rows"
        )
    offset = int(found["act_offset"])
    branches = _rows(found["branches"], len(weight), len(act)) if found["branches"] else None
    geometry = BranchGeometry(act, weight, offset, strides, padding, dilation, groups, branches)
    return Workload(
        found["batch"],
        height,
        width,
        channels,
        out_channels,
        height_width(_integers(found["kernel"].replace("x", ","), 1)),
        geometry,
        found["source"],
        found["ending"],
        found["weight_offset"] == "1",
        found["threads"],
        copies,
        weight_rows,
        int(found["codewords"] or 0),
    )


def _planes(coefficients: tuple[int, ...]) -> str:
    """Bits, and the coefficients of planes where they aren't powers of two."""
    bits = len(coefficients)
    is_plain = coefficients == tuple(2**bit for bit in range(bits))
    return str(bits) if is_plain else f"{bits}({_numbers(coefficients)})"


def _coefficients(text: str) -> tuple[int, ...]:
    bits, _, listed = text.rstrip(")").partition("(")
    found = _integers(listed, 0) if listed else tuple(2**bit for bit in range(int(bits)))
    if len(found) != int(bits):
        raise ValueError(f"{text!r} has not as many coefficients as bits")
    return found


def _matrix(rows: Matrix) -> str:
    return ";".join(map(_numbers, rows))


def _rows(text: str, weight_bits: int, act_bits: int) -> Matrix:
    rows = tuple(_integers(row, -INT32_MAX) for row in text.split(";"))
    if len(rows) != weight_bits or {len(row) for row in rows} != {act_bits}:
        raise ValueError(f"{text!r} is no matrix of {weight_bits} rows and {act_bits} columns")
    if not any(map(any, rows)):
        raise ValueError(f"{text!r} leaves no branch")
    return rows


def _numbers(values: Iterable[int]) -> str:
    return ",".join(map(str, values))


def _integers(text: str, least: int) -> tuple[int, ...]:
    return tuple(_bounded(number, least) for number in text.split(","))


def _bounded(text: str, least: int) -> int:
    number = int(text)
    if not least <= number <= INT32_MAX:
        raise ValueError(f"{number} isn't from {least} to {INT32_MAX}")
    return number


def _ending(layer: ConvLayer) -> str:
    if layer.thresholds is not None:
        return f"{'B' if layer.writes_bytes else 'A'}{layer.out_bits}"
    return "floats:" + "+".join(step.name for step in layer.steps) if layer.steps else "int32"


@lru_cache(maxsize=4096)
def numbers_of(text: str) -> dict[str, float]:
    """Sizes of a workload that the cost model sees, by name."""
    workload = parse_workload(text)
    geometry = workload.geometry
    height, width = (
        geometry.out_size((workload.height, workload.width)[axis], workload.kernel[axis], axis)
        for axis in (0, 1)
    )
    return {
        "in_channels": math.log2(workload.channels / geometry.groups),
        "out_channels": math.log2(workload.out_channels),
        "taps": math.prod(workload.kernel),
        "stride": geometry.strides[0],
        "height": height,
        "width": width,
        "weight_bits": len(geometry.weight_coefficients),
        "act_bits": len(geometry.act_coefficients),
        "out_bits": workload.out_bits,
        "is_grouped": geometry.groups > 1,
        "distinct": math.log2(workload.distinct),
        "codewords": workload.codewords,
        "threads": 0 if workload.threads == "pool" else int(workload.threads),
    }


def target_key(target: Target) -> str:
    """Name CPU and instruction sets: measurements hold for no other.

    Instruction sets are those that kernels are made for, those of the target's own rule sets, and
    those added to what the CPU has.
    """
    cpu = str(target.tvm_target.attrs.get("mcpu", "")) or "generic"
    added = [str(name)[1:] for name in target.tvm_target.attrs.get("mattr", []) if name[0] == "+"]
    found = kernel_features(target.features, target.architecture)
    found |= instructions(added, target.architecture) | own_features(target)
    return " ".join([target.architecture, cpu, *sorted(found)])


def tvm_version() -> str:
    """Release of TVM without its last part, which doesn't change code generation."""
    return ".".join(tvm.__version__.split(".")[:2])
