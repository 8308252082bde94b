"""Which layers can be lowered, and why the others can't."""

from __future__ import annotations

import tvm
from tvm import relax

from ..analysis.float32 import is_constant, op_name
from ..rewrite import Graph
from ..visit import visit_calls
from .operands import quantized_sources, weight_quantizer
from .padding import split_padding

# Layouts of data and weights by op: what front ends emit.
LAYOUTS = {
    "relax.nn.conv1d": ("NCW", "OIW"),
    "relax.nn.conv2d": ("NCHW", "OIHW"),
    "relax.nn.conv1d_transpose": ("NCW", "IOW"),
    "relax.nn.conv2d_transpose": ("NCHW", "IOHW"),
}
PRODUCT = "relax.matmul"
NO_QUANTIZER = "its weight isn't quantized"


def is_layer(expr: relax.Expr) -> bool:
    """Whether an expression is a float convolution or matrix product."""
    name = op_name(expr)
    return name == PRODUCT or (name.startswith("relax.nn.conv") and "bias" not in name)


def out_axis(call: relax.Call) -> int | None:
    """Axis of a layer's weight along which output channels may have scales of their own.

    None where there is none: of a product of more than matrices, or of groups that share it.
    """
    if op_name(call) == PRODUCT:
        return 1 if len(call.args[1].ty.shape) == 2 else None
    axis = str(call.attrs.kernel_layout).index("O")
    return axis if axis == 0 or int(call.attrs.groups) == 1 else None


def reason_for_float(call: relax.Call, graph: Graph) -> str:
    """Why a layer can't be lowered, empty if it can."""
    name = op_name(call)
    if name != PRODUCT and name not in LAYOUTS:
        return f"{name} has no branch form yet"
    if name in LAYOUTS:
        layouts = (str(call.attrs.data_layout), str(call.attrs.kernel_layout))
        if layouts != LAYOUTS[name]:
            return f"its layout is {'/'.join(layouts)}, not {'/'.join(LAYOUTS[name])}"
    _, reason = quantized_sources(split_padding(call, graph)[0], graph)
    if reason:
        return f"its input {reason}"
    if name == PRODUCT:
        return _reason_of_product(call, graph)
    if weight_quantizer(call, graph) is None:
        return NO_QUANTIZER
    return ""


def _reason_of_product(call: relax.Call, graph: Graph) -> str:
    if min(len(operand.ty.shape) for operand in call.args) < 2:
        return "one of its operands is a vector"
    if is_product_of_activations(call, graph):
        _, reason = quantized_sources(call.args[1], graph)
        return reason and f"its second operand {reason}"
    return "" if weight_quantizer(call, graph) is not None else NO_QUANTIZER


def is_product_of_activations(call: relax.Call, graph: Graph) -> bool:
    """Whether a matrix product has no matrix of weights as its second operand."""
    quantizer = weight_quantizer(call, graph)
    weight = call.args[1] if quantizer is None else quantizer.args[0]
    return len(call.args[1].ty.shape) > 2 or not is_constant(weight, graph)


def float_layers(mod: tvm.IRModule) -> list[tuple[relax.Call, str]]:
    """Layers that `Lower` leaves in float, each with the reason."""
    found = []

    def note(call: relax.Call, graph: Graph) -> None:
        if is_layer(call):
            found.append((call, reason_for_float(call, graph)))

    visit_calls(mod, note)
    return [(call, reason) for call, reason in found if reason]
