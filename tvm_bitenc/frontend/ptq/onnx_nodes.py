"""ONNX nodes of a quantized layer, with QONNX's `Quant`; ONNX Runtime runs them as well.

Before::

    y = Conv(x, weight, bias)

After::

    q = Quant(Mul(x, 2 / s_a), 2, z_a, K)                       # integers v + o
    y = Add(Mul(Conv(q, Quant(weight_integers, 2, z_w, M)), s_a s_w / 4), bias)
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, helper, numpy_helper

from ...encoding import Encoding
from .layer import QuantizedLayer

DOMAIN = "qonnx.custom_op.general"
STEP = 2.0  # Between neighbouring integers v + o.
MIN_IR_VERSION = 8  # The first with functions.


def quantized_model(
    model: ModelProto, quantized: list[QuantizedLayer], is_runnable: bool
) -> ModelProto:
    """Return a model with some layers quantized, and one quantizer per tensor and grid.

    Parameters
    ----------
    model : onnx.ModelProto
    quantized : list of QuantizedLayer
        Their outputs name the nodes.
    is_runnable : bool
        Say what `Quant` does in standard operators, so that any runtime runs the model.
    """
    result = ModelProto()
    result.CopyFrom(model)
    if not quantized:
        return result
    result.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    result.ir_version = max(result.ir_version, MIN_IR_VERSION)
    graph, by_output = result.graph, {one.layer.output: one for one in quantized}
    nodes = list(graph.node)
    del graph.node[:]
    quantizers: dict[tuple, str] = {}
    for node in nodes:
        one = by_output.get(node.output[0]) if node.output else None
        if one is None:
            graph.node.append(node)
        else:
            integers = _quantized_input(graph, one, quantizers)
            _integer_layer(graph, node, one, integers)
    _drop_unused_weights(graph)
    if is_runnable:
        result.functions.append(_quant_function(result))
    return result


def _drop_unused_weights(graph: GraphProto) -> None:
    """Remove the float weights of what is quantized now."""
    used = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    if any(a.HasField("g") or a.graphs for node in graph.node for a in node.attribute):
        return  # A loop's body may use them.
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _quantized_input(graph: GraphProto, one: QuantizedLayer, quantizers: dict) -> str:
    """Name of the integers of a layer's input; an earlier layer may have made them."""
    source, act = one.layer.input, one.act
    grid = (source, act.bits, float(act.scale), float(act.zero_point))
    if grid not in quantizers:
        name = f"{source}_a{act.bits}"
        scaled, integers = f"{name}_scaled", f"{name}_integers"
        factor = _constant(graph, f"{name}_factor", one.act_factor)
        graph.node.append(helper.make_node("Mul", [source, factor], [scaled], scaled))
        _quant(graph, scaled, act, integers)
        quantizers[grid] = integers
    return quantizers[grid]


def _integer_layer(graph: GraphProto, node: NodeProto, one: QuantizedLayer, integers: str) -> None:
    name, output = one.layer.name, node.output[0]
    weight = one.weight_integers
    if one.layer.is_dense or one.layer.is_transposed:
        weight = weight.swapaxes(0, 1)
    stored = _constant(graph, f"{name}_weight_integers", weight)
    _quant(graph, stored, one.weight, f"{name}_weight")
    sums, scaled = f"{name}_sums", f"{name}_scaled_sums"
    inputs = [integers, f"{name}_weight"]
    if one.layer.is_dense:
        graph.node.append(helper.make_node("MatMul", inputs, [sums], name))
    else:
        layer = graph.node.add()
        layer.CopyFrom(node)
        layer.input[:], layer.output[:] = inputs, [sums]
    shape = (-1, *[1] * one.layer.spatial_axes)
    scale = _constant(graph, f"{name}_out_scale", one.out_scale.reshape(shape))
    last = output if one.bias is None else scaled
    graph.node.append(helper.make_node("Mul", [sums, scale], [last], scaled))
    if one.bias is not None:
        bias = _constant(graph, f"{name}_bias", one.bias.reshape(shape))
        graph.node.append(helper.make_node("Add", [scaled, bias], [output], f"{name}_add"))


def _quant(graph: GraphProto, source: str, encoding: Encoding, output: str) -> None:
    parameters = [
        _constant(graph, f"{output}_{what}", np.float32(value))
        for what, value in (
            ("step", STEP),
            ("zero_point", encoding.zero_point),
            ("bits", encoding.bits),
        )
    ]
    graph.node.append(
        helper.make_node(
            "Quant",
            [source, *parameters],
            [output],
            output,
            domain=DOMAIN,
            signed=0,
            narrow=0,
            rounding_mode="ROUND",
        )
    )


def _constant(graph: GraphProto, name: str, value: ArrayLike) -> str:
    array = np.ascontiguousarray(value, np.float32).reshape(np.shape(value))
    graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def _quant_function(model: ModelProto) -> FunctionProto:
    """`Quant` without sign and narrow range, in standard operators."""
    nodes = [
        *(
            helper.make_node(
                "Constant", [], [name], value=numpy_helper.from_array(np.array(v, np.float32))
            )
            for name, v in (("zero", 0), ("one", 1), ("two", 2))
        ),
        helper.make_node("Div", ["x", "scale"], ["divided"]),
        helper.make_node("Add", ["divided", "zero_point"], ["shifted"]),
        helper.make_node("Round", ["shifted"], ["rounded"]),
        helper.make_node("Pow", ["two", "bits"], ["count"]),
        helper.make_node("Sub", ["count", "one"], ["top"]),
        helper.make_node("Max", ["rounded", "zero"], ["above"]),
        helper.make_node("Min", ["above", "top"], ["code"]),
        helper.make_node("Sub", ["code", "zero_point"], ["level"]),
        helper.make_node("Mul", ["level", "scale"], ["y"]),
    ]
    version = next(o.version for o in model.opset_import if o.domain == "")
    return helper.make_function(
        DOMAIN,
        "Quant",
        ["x", "scale", "zero_point", "bits"],
        ["y"],
        nodes,
        [helper.make_opsetid("", version)],
        ["signed", "narrow", "rounding_mode"],
    )


def attributes_of(node: NodeProto) -> dict:
    """Attributes by name."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _scalar(value: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, np.float32))
