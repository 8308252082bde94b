"""The C interface of a bundle: what its header, its example program and `NAME_run` share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...batch import TensorSpec
from .plan import Plan, Tensor

_C_TYPES = {"float32": "float", "float64": "double", "bool": "uint8_t", "float16": "uint16_t"}
_KEYWORDS = """
    auto bool break case char class const continue default delete do double else enum extern false
    float for goto if inline int long new register restrict return short signed sizeof static struct
    switch template this true typedef union unsigned void volatile while
"""
_NAMES_IN_NET_C = """
    NULL arguments bases bitenc_error bitenc_run i is_aligned net shapes steps tensors
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
        element = _C_TYPES.get(self.tensor.dtype, f"{self.tensor.dtype}_t")
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
    return f"#define {port.bytes_macro} {port.tensor.nbytes}"


def _documented(port: Port) -> str:
    sizes = " x ".join(map(str, port.tensor.shape)) or "a scalar"
    verb = "read" if port.is_input else "written"
    return f" *   {port.name}: {port.tensor.dtype}, {sizes}, {verb}"


def _array(port: Port, net: str) -> str:
    alignment = f"_Alignas({net.upper()}_ALIGNMENT)"
    return f"static {alignment} unsigned char {port.array}[{port.bytes_macro}];"
