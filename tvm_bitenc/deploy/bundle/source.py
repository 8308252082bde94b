"""C text of a bundle: tables for `net.c`, the interface for `net.h`."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from importlib import resources

import tvm

from ...batch import TensorSpec
from ...errors import UnsupportedError
from .kernels import symbol
from .plan import ALIGNMENT, ARENA, WEIGHTS, Plan, Tensor

MAX_ARGUMENTS = 64  # BITENC_MAX_ARGUMENTS of bitenc_runtime.h.
_CODES = {"int": 0, "uint": 1, "float": 2, "bool": 6}  # Of DLPack.
_C_TYPES = {"float32": "float", "float64": "double", "bool": "uint8_t", "float16": "uint16_t"}
_RESERVED = frozenset(
    [
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
        "net",
        "arena",
        "status",
        "bases",
        "main",
    ]
)


class _Template(string.Template):
    delimiter = "@"  # C has no use for it, and a Makefile's $ stays as it is.


def render(template: str, **values: object) -> str:
    """Fill in a file of templates/."""
    text = resources.files(__package__).joinpath("templates", template).read_text("utf-8")
    return _Template(text).substitute(values)


def identifiers(names: Sequence[str], prefix: str) -> list[str]:
    """C names like `names`, all different."""
    result: list[str] = []
    for i, name in enumerate(names):
        cleaned = re.sub(r"\W", "_", name, flags=re.ASCII)
        if not re.match(r"[A-Za-z]", cleaned) or cleaned in _RESERVED or cleaned in result:
            cleaned = f"{prefix}{i}"
        result.append(cleaned)
    return result


def interface(plan: Plan, inputs: Sequence[TensorSpec], net: str) -> dict[str, str]:
    """Values for all templates that follow from inputs and outputs."""
    names = identifiers([spec.name for spec in inputs], "input")
    results = identifiers([f"output{i}" for i in range(len(plan.outputs))], "result")
    pairs = list(zip(names, plan.inputs)), list(zip(results, plan.outputs))
    parameters = [f"const {_c_type(tensor)} *{name}" for name, tensor in pairs[0]]
    parameters += [f"{_c_type(tensor)} *{name}" for name, tensor in pairs[1]]
    macros = [
        f"#define {net.upper()}_{kind}{i}_BYTES {tensor.nbytes}  /* {describe(name, tensor)} */"
        for kind, tensors in zip(("INPUT", "OUTPUT"), pairs)
        for i, (name, tensor) in enumerate(tensors)
    ]
    documented = [
        f" * {name}: {tensor.dtype} {_sizes(tensor)}, {'read' if kind == 0 else 'written'}"
        for kind, tensors in enumerate(pairs)
        for name, tensor in tensors
    ]
    return {
        "net": net,
        "NET": net.upper(),
        "parameters": ", ".join(parameters),
        "size_macros": "\n".join(macros),
        "documented": "\n".join(documented),
        "input_bases": ", ".join(f"(void *){name}" for name in names),
        "output_bases": ", ".join(results),
        "run_arguments": ", ".join(
            [f"inputs[{i}]" for i in range(len(names))]
            + [f"outputs[{i}]" for i in range(len(results))]
        ),
        "input_sizes": ", ".join(f"{net.upper()}_INPUT{i}_BYTES" for i in range(len(names))),
        "output_sizes": ", ".join(f"{net.upper()}_OUTPUT{i}_BYTES" for i in range(len(results))),
        "n_inputs": str(len(names)),
        "n_outputs": str(len(results)),
        "usage": " ".join(
            [f"{n.upper()}.bin" for n in names] + [f"{n.upper()}.bin" for n in results]
        ),
        "storage": "\n".join(
            f"static _Alignas({net.upper()}_ALIGNMENT) unsigned char {kind.lower()}{i}"
            f"[{net.upper()}_{kind}{i}_BYTES];"
            for kind, tensors in zip(("INPUT", "OUTPUT"), pairs)
            for i in range(len(tensors))
        ),
        "input_pointers": ", ".join(f"input{i}" for i in range(len(names))),
        "output_pointers": ", ".join(f"output{i}" for i in range(len(results))),
        "run_storage": ", ".join(
            [f"(const {_c_type(t)} *)input{i}" for i, (_, t) in enumerate(pairs[0])]
            + [f"({_c_type(t)} *)output{i}" for i, (_, t) in enumerate(pairs[1])]
        ),
    }


def tables(plan: Plan, net: str) -> dict[str, str]:
    """Tables of `net.c`: shapes, tensors and steps."""
    bases = [ARENA, WEIGHTS]
    bases += [f"input{i}" for i in range(len(plan.inputs))]
    bases += [f"output{i}" for i in range(len(plan.outputs))]
    shapes: list[str] = []
    tensors, position = [], 0
    for i, tensor in enumerate(plan.tensors):
        code, bits = _dtype(tensor.dtype)
        tensors.append(
            f"    {{{bases.index(tensor.base)}, {len(tensor.shape)}, {code}, {bits}, "
            f"{tensor.offset}u, {tensor.nbytes}u, shapes + {position}}},  "
            f"/* {i}: {describe(tensor.base, tensor)} */"
        )
        shapes.append("    " + "".join(f"{size}, " for size in tensor.shape or (1,)).rstrip())
        position += len(tensor.shape or (1,))
    kernels = sorted({step.kernel for step in plan.steps if step.kernel})
    return {
        "declarations": "\n".join(f"bitenc_kernel {symbol(net, kernel)};" for kernel in kernels),
        "shapes": "\n".join(shapes),
        "tensors": "\n".join(tensors),
        "arguments": "\n".join(
            "    " + " ".join(f"{tensor}," for tensor in step.tensors) for step in plan.steps
        ),
        "steps": _steps(plan, net),
        "n_steps": str(len(plan.steps)),
    }


def _steps(plan: Plan, net: str) -> str:
    lines, position = [], 0
    for step in plan.steps:
        if len(step.tensors) > MAX_ARGUMENTS:
            raise UnsupportedError(
                f"kernel {step.kernel!r}",
                f"takes {len(step.tensors)} tensors, and a C bundle's take {MAX_ARGUMENTS}",
                "Use export_library",
            )
        kernel = symbol(net, step.kernel) if step.kernel else "NULL"
        name = step.kernel or "copy"
        lines.append(f'    {{{kernel}, "{name}", {len(step.tensors)}, arguments + {position}}},')
        position += len(step.tensors)
    return "\n".join(lines)


def describe(name: str, tensor: Tensor) -> str:
    """One line about a tensor."""
    return f"{name}: {tensor.dtype} {_sizes(tensor)}"


def _sizes(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"


def _dtype(dtype: str) -> tuple[int, int]:
    kind = re.match(r"[a-z]+", dtype).group()
    if kind not in _CODES:
        raise UnsupportedError(f"type {dtype}", "has no C bundle", "Use export_library")
    return _CODES[kind], 8 * tvm.DataType(dtype).itemsize


def _c_type(tensor: Tensor) -> str:
    return _C_TYPES.get(tensor.dtype, f"{tensor.dtype}_t")


__all__ = ["ALIGNMENT", "describe", "identifiers", "interface", "render", "tables"]
