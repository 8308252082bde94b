"""Keys of records: what a layer is to a kernel, and what a target is to a measurement."""

from __future__ import annotations

import math
import re
from functools import lru_cache

import tvm
from tvm import relax

from ..op.packed import conv_layer_of, takes_codes
from ..target import Target
from ..te.conv_layer import ConvLayer

# CPU features that rules of `tvm_bitenc.schedule` ask for.
X86_FEATURES = {"avx2", "avxvnni", "avx512f", "avx512bw", "avx512vnni", "avx512vbmi", "gfni"}
POPCOUNT = {"avx512vpopcntdq", "avx512bitalg"}
FEATURES = X86_FEATURES | POPCOUNT | {"neon", "dotprod", "i8mm"}


# The text that `workload_of` writes.
WORKLOAD = re.compile(
    r"conv2d \w+?x(?P<height>\d+)x(?P<width>\d+)x(?P<channels>\d+)->(?P<out>\d+)"
    r" (?P<kernel0>\d+)x(?P<kernel1>\d+) W(?P<weight>\d+)\S*?A(?P<act>\d+)\S*"
    r" stride=(?P<stride0>\d+),(?P<stride1>\d+)"
    r" padding=(?P<pad0>\d+),(?P<pad1>\d+),(?P<pad2>\d+),(?P<pad3>\d+)"
    r" dilation=(?P<dilation0>\d+),(?P<dilation1>\d+) groups=(?P<groups>\d+)"
    r" from=\w+ to=(?:A(?P<ends>\d+)|\S+) sums=\d\d threads=(?P<threads>\w+)$"
)


def workload_of(call: relax.Call, target: Target) -> str:
    """Describe a packed convolution: all that the speed of its kernel depends on but the CPU.

    Names and values of weights aren't part of it, nor is the strategy: that is tuned.
    """
    layer = conv_layer_of(call)
    batch = "n" if layer.has_dynamic_batch else str(layer.input_shape[0])
    sizes = "x".join([batch, *map(str, layer.input_shape[1:])])
    kernel, geometry = "x".join(map(str, layer.kernel_size)), layer.geometry
    parts = [
        f"conv2d {sizes}->{layer.out_channels} {kernel}",
        f"W{_planes(geometry.weight_coefficients)}A{_planes(geometry.act_coefficients)}",
        f"stride={_numbers(geometry.strides)}",
        f"padding={_numbers(geometry.padding)}",
        f"dilation={_numbers(geometry.dilation)}",
        f"groups={geometry.groups}",
        f"from={'codes' if takes_codes(call) else 'planes'}",
        f"to={_ending(layer)}",
        f"sums={int(layer.has_act_sum)}{int(layer.geometry.act_offset != 0)}",
        f"threads={target.threads or 'pool'}",
    ]
    return " ".join(parts)


def _planes(coefficients: tuple[int, ...]) -> str:
    """Bits, and the coefficients of planes where they aren't powers of two."""
    bits = len(coefficients)
    is_plain = coefficients == tuple(2**bit for bit in range(bits))
    return str(bits) if is_plain else f"{bits}({_numbers(coefficients)})"


def _numbers(values) -> str:
    return ",".join(map(str, values))


def _ending(layer: ConvLayer) -> str:
    if layer.thresholds is not None:
        return f"A{layer.out_bits}"
    return "floats:" + "+".join(step.name for step in layer.steps) if layer.steps else "int32"


@lru_cache(maxsize=4096)
def numbers_of(workload: str) -> dict[str, float]:
    """Read the sizes off a workload's text, by name.

    Raises
    ------
    ValueError
        If it isn't the text of a workload.
    """
    found = WORKLOAD.match(workload)
    if found is None:
        raise ValueError(f"{workload!r} isn't a workload")
    values = {k: int(v) if v.isdigit() else 0 for k, v in found.groupdict(default="0").items()}
    sizes = {}
    for axis, name in enumerate(("height", "width")):
        padded = values[name] + values[f"pad{axis}"] + values[f"pad{axis + 2}"]
        window = values[f"dilation{axis}"] * (values[f"kernel{axis}"] - 1) + 1
        sizes[name] = max((padded - window) // max(values[f"stride{axis}"], 1) + 1, 1)
    return {
        "in_channels": math.log2(max(values["channels"] // max(values["groups"], 1), 1)),
        "out_channels": math.log2(max(values["out"], 1)),
        "taps": values["kernel0"] * values["kernel1"],
        "stride": values["stride0"],
        **sizes,
        "weight_bits": values["weight"],
        "act_bits": values["act"],
        "out_bits": values["ends"],
        "is_grouped": values["groups"] > 1,
        "threads": values["threads"],
    }


def target_key(target: Target) -> str:
    """Name CPU and instruction sets: measurements hold for no other."""
    cpu = str(target.tvm_target.attrs.get("mcpu", "")) or "generic"
    return " ".join([target.architecture, cpu, *sorted(target.features & FEATURES)])


def tvm_version() -> str:
    """Release of TVM without its last part, which doesn't change code generation."""
    return ".".join(tvm.__version__.split(".")[:2])


def geometric_mean(values) -> float:
    """Return the geometric mean; nan of nothing."""
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else math.nan
