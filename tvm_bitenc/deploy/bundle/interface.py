"""The C interface of a bundle: what its header, its example program and `NAME_run` share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...entry.plan import Plan, Tensor
from ...errors import UnsupportedError
from ...runtime.size import Size
from ...runtime.specs import TensorSpec

_C_TYPES = {"float32": "float", "float64": "double", "bool": "uint8_t", "float16": "uint16_t"}
_C_TYPES |= {
    f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_KEYWORDS = """
    auto bool break case char class const continue default delete do double else enum extern false
    float for goto if inline int long new register restrict return short signed sizeof static struct
    switch template this true typedef union unsigned void volatile while
"""
_NAMES_IN_NET_C = """
    NULL INT32_MAX fits net
"""
_RESERVED = frozenset((_KEYWORDS + _NAMES_IN_NET_C).split())


@dataclass(frozen=True)
class Port:
    """An input or output: its name in C, the array of the example program, its bytes' macro."""

    name: str
    tensor: Tensor
    array: str
    bytes_macro: str
    is_input: bool

    @property
    def c_type(self) -> str:
        """C type of a pointer to its elements."""
        element = _C_TYPES.get(self.tensor.dtype)
        if element is None:
            raise UnsupportedError(
                f"type {self.tensor.dtype} of {self.name!r}", "isn't C's", "Use export_library"
            )
        return f"const {element} *" if self.is_input else f"{element} *"


def make_ports(plan: Plan, inputs: Sequence[TensorSpec], net: str) -> list[Port]:
    """Name inputs and outputs, in the order of `NAME_run`'s arguments."""
    ports: list[Port] = []
    for kind, tensors in (("input", plan.inputs), ("output", plan.outputs)):
        is_input = kind == "input"
        for i, tensor in enumerate(tensors):
            wanted = inputs[i].name if is_input else f"output{i}"
            name = _identifier(wanted, f"{kind}_{i}", {net, *(port.name for port in ports)})
            macro = f"{net.upper()}_{kind.upper()}{i}_BYTES"
            ports.append(Port(name, tensor, f"{kind}{i}_data", macro, is_input))
    return ports


def _identifier(wanted: str, otherwise: str, taken: set[str]) -> str:
    """Return `wanted` with an underscore for what C doesn't take, or a name that is free."""
    name = re.sub(r"\W", "_", wanted, flags=re.ASCII)
    is_free = name not in _RESERVED and name not in taken
    return name if re.match(r"[A-Za-z]", name) and is_free else otherwise


def interface(ports: Sequence[Port], net: str) -> dict[str, str]:
    """Values for the templates."""
    inputs = [port for port in ports if port.is_input]
    outputs = [port for port in ports if not port.is_input]
    return {
        "net": net,
        "NET": net.upper(),
        "parameters": ", ".join(f"{port.c_type}{port.name}" for port in ports),
        "bases": ", ".join(f"(void *){port.name}" for port in ports),
        "checks": " && ".join(f"fits({port.name}, sizeof *{port.name})" for port in ports),
        "steps_parameters": ", ".join(["void *"] * len(ports)),
        "size_macros": "\n".join(map(_size_macro, ports)),
        "documented": "\n".join(map(_documented, ports)),
        "usage": " ".join(f"{port.name.upper()}.bin" for port in ports),
        "arrays": "\n".join(_array(port, net) for port in ports),
        "run_arguments": ", ".join(f"({port.c_type}){port.array}" for port in ports),
        "input_arrays": ", ".join(port.array for port in inputs),
        "output_arrays": ", ".join(port.array for port in outputs),
        "input_bytes": ", ".join(port.bytes_macro for port in inputs),
        "output_bytes": ", ".join(port.bytes_macro for port in outputs),
        "n_inputs": str(len(inputs)),
        "n_outputs": str(len(outputs)),
    }


def _size_macro(port: Port) -> str:
    return f"#define {port.bytes_macro} {_fixed(port.tensor.nbytes)}"


def _documented(port: Port) -> str:
    sizes = " x ".join(str(_fixed(size)) for size in port.tensor.shape) or "a scalar"
    verb = "read" if port.is_input else "written"
    return f" *   {port.name}: {port.tensor.dtype}, {sizes}, {verb}"


def _array(port: Port, net: str) -> str:
    alignment = f"_Alignas({net.upper()}_ALIGNMENT)"
    return f"static {alignment} unsigned char {port.array}[{port.bytes_macro}];"


def _fixed(size: Size) -> int:
    if size.per_sample:
        raise UnsupportedError(
            "the batch",
            "is known only when the model runs",
            "Import the model with a fixed batch: a C bundle plans its memory beforehand",
        )
    return size.fixed
