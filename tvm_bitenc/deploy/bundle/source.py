"""C text of a bundle: the templates, and the tables of `net.c`."""

from __future__ import annotations

import string
from importlib import resources

import tvm

from ...errors import UnsupportedError
from .kernels import symbol
from .plan import ARENA, WEIGHTS, Plan, Step, Tensor

MAX_ARGUMENTS = 64  # BITENC_MAX_ARGUMENTS of bitenc_runtime.h.
_DLPACK_CODES = {"int": 0, "uint": 1, "float": 2, "bool": 6}


class _Template(string.Template):
    delimiter = "@"  # C has no use for it, and a Makefile's $ stays as it is.


def render(template: str, **values: object) -> str:
    """Fill in a file of templates/."""
    text = resources.files(__package__).joinpath("templates").joinpath(template).read_text("utf-8")
    return _Template(text).substitute(values)


def tables(plan: Plan, net: str) -> dict[str, str]:
    """Tables of `net.c`: shapes, tensors, arguments and steps."""
    bases = [ARENA, WEIGHTS, *(t.base for t in plan.inputs), *(t.base for t in plan.outputs)]
    kernels = sorted({step.kernel for step in plan.steps if step.kernel})
    shapes, tensors, position = [], [], 0
    for i, tensor in enumerate(plan.tensors):
        sizes = tensor.shape or (1,)  # C has no empty arrays; of a scalar's, nothing is read.
        shapes.append("    " + " ".join(f"{size}," for size in sizes))
        tensors.append(_tensor(tensor, bases.index(tensor.base), position, i))
        position += len(sizes)
    arguments, steps, position = [], [], 0
    for step in plan.steps:
        arguments.append("    " + " ".join(f"{index}," for index in step.tensors))
        steps.append(_step(step, net, position))
        position += len(step.tensors)
    return {
        "declarations": "\n".join(f"bitenc_kernel {symbol(net, kernel)};" for kernel in kernels),
        "shapes": "\n".join(shapes),
        "tensors": "\n".join(tensors),
        "arguments": "\n".join(arguments),
        "steps": "\n".join(steps),
    }


def _tensor(tensor: Tensor, base: int, shape_at: int, index: int) -> str:
    code, bits = _dlpack_type(tensor.dtype)
    sizes = ", ".join(map(str, tensor.shape))
    return (
        f"    {{{base}, {len(tensor.shape)}, {code}, {bits}, {tensor.offset}u, {tensor.nbytes}u, "
        f"shapes + {shape_at}}}, /* {index}: {tensor.base}, {tensor.dtype} ({sizes}) */"
    )


def _step(step: Step, net: str, arguments_at: int) -> str:
    count = len(step.tensors)
    if count > MAX_ARGUMENTS:
        raise UnsupportedError(
            f"kernel {step.kernel!r}",
            f"takes {count} tensors, and kernels of a C bundle take at most {MAX_ARGUMENTS}",
            "Use export_library",
        )
    kernel = symbol(net, step.kernel) if step.kernel else "NULL"
    return f'    {{{kernel}, "{step.kernel or "copy"}", {count}, arguments + {arguments_at}}},'


def _dlpack_type(dtype: str) -> tuple[int, int]:
    kind = dtype.rstrip("0123456789")
    if kind not in _DLPACK_CODES:
        raise UnsupportedError(f"type {dtype}", "isn't C's", "Use export_library")
    return _DLPACK_CODES[kind], 8 * tvm.DataType(dtype).itemsize
