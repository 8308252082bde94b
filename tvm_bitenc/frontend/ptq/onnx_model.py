"""An ONNX model as post-training quantization sees it: run and simplified by ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import tvm
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from ...errors import BitencError, UnsupportedError, first_line
from ..onnx import from_onnx
from ..onnx.model import STANDARD, inputs_of, load, opset_of
from .batches import checked_batches
from .checkpoint import hash_of
from .layer import Layer, QuantizedLayer
from .onnx_nodes import attributes_of, quantized_model
from .report import REPORT
from .steps import Step

Batch = dict[str, np.ndarray]  # Inputs of one run, by name.
MIN_OPSET = 11  # The first with Round.
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
OTHER_LAYERS = ("ConvInteger", "MatMulInteger", "RNN", "LSTM", "GRU", "Einsum")


class OnnxModel:
    """A float ONNX model, its layers and its calibration data.

    Parameters
    ----------
    path_or_model_proto : str, Path or onnx.ModelProto
    batches : iterable
        Arrays or tensors, tuples of them in the order of the inputs, or dictionaries by name.
    shapes : mapping, optional
        Input shapes of the result; those of the first batch by default.

    Raises
    ------
    BitencError
        If the model is invalid, or the batches don't fit it.
    UnsupportedError
        If ONNX Runtime can't run it.
    """

    def __init__(
        self,
        path_or_model_proto: str | Path | ModelProto,
        batches: Iterable,
        shapes: Mapping | None,
    ):
        self.model = _simplified(load(path_or_model_proto))
        self.inputs = [value.name for value in inputs_of(self.model)]
        self.outputs = [value.name for value in self.model.graph.output]
        self.constants = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.batches = [
            self._named(f"calibration batch {i}", batch)
            for i, batch in enumerate(checked_batches(batches))
        ]
        self.result_shapes = shapes or {k: v.shape for k, v in self.batches[0].items()}
        _name_nodes(self.model.graph.node)
        made = [o for node in self.model.graph.node for o in node.output if o]
        values = {**self.batches[0], **self._run(self._session, made, 0)}
        self.shapes = {name: tuple(value.shape) for name, value in values.items()}
        self.layers, self.float_layers = self._layers()
        self.steps = self._steps()

    def key(self) -> str:
        """Hash of the network and its calibration data."""
        parts = [self.model.SerializeToString(deterministic=True)]
        for batch in self.batches:
            parts += [part for item in batch.items() for part in item]
        return hash_of(parts)

    def values(
        self, names: Sequence[str], quantized: Mapping[str, QuantizedLayer] | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """Tensors by name, batch by batch, with some layers quantized (none by default)."""
        session = self._session
        if quantized:
            model = quantized_model(self.model, list(quantized.values()), is_runnable=True)
            session = _session(_with_outputs(model, [n for n in names if n not in self.inputs]))
        for i, batch in enumerate(self.batches):
            found = {**batch, **self._run(session, names, i)}
            yield {name: torch.from_numpy(found[name]) for name in names}

    def result(self, quantized: Mapping[str, QuantizedLayer], report: str) -> tvm.IRModule:
        """Import the quantized model."""
        model = quantized_model(self.model, list(quantized.values()), is_runnable=False)
        return from_onnx(model, self.result_shapes).with_attr(REPORT, report)

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        """Runs the float model; every tensor may be asked for."""
        made = [o for node in self.model.graph.node for o in node.output if o]
        return _session(_with_outputs(self.model, made))

    def _run(
        self, session: onnxruntime.InferenceSession, names: Iterable[str], batch: int
    ) -> dict[str, np.ndarray]:
        """Values of tensors that aren't inputs."""
        computed = [name for name in names if name not in self.inputs]
        try:
            return dict(zip(computed, session.run(computed, self.batches[batch])))
        except Exception as error:  # ONNX Runtime's exceptions have no common class.
            raise BitencError(
                f"calibration batch {batch}",
                f"doesn't run: {first_line(error)}",
                "Check its shapes and types",
            ) from error

    def _named(self, where: str, batch: tuple | dict) -> Batch:
        if not isinstance(batch, dict):
            batch = dict(zip(self.inputs, batch)) if len(batch) == len(self.inputs) else {}
        if set(batch) != set(self.inputs):
            raise BitencError(
                where,
                f"doesn't fit the inputs {', '.join(self.inputs)}",
                "Give one tensor each, in this order or by name, without labels",
            )
        return {name: np.ascontiguousarray(batch[name]) for name in self.inputs}

    def _layers(self) -> tuple[list[Layer], list[tuple[str, str]]]:
        layers, left = [], []
        for node in self.model.graph.node:
            if node.op_type in LAYERS:
                reason = self._reason_for_float(node)
                if not reason:
                    is_dense = node.op_type in ("Gemm", "MatMul")
                    layers.append(self._dense(node) if is_dense else self._conv(node))
                    continue
            elif node.op_type in OTHER_LAYERS:
                reason = f"{node.op_type} isn't quantized"
            else:
                continue
            left.append((node.name, reason))
        return layers, left

    def _reason_for_float(self, node: NodeProto) -> str:
        """Why a layer stays float, empty if it needn't."""
        weight, attributes = self.constants.get(node.input[1]), attributes_of(node)
        if node.input[0] in self.constants:
            return "its input is constant"
        if weight is None:
            return "a product of two activations isn't quantized"
        if weight.data_type != TensorProto.FLOAT:
            return "its weight isn't float32"
        if len(node.input) > 2 and node.input[2] and node.input[2] not in self.constants:
            return "its bias isn't constant"
        if node.op_type in ("Conv", "ConvTranspose"):
            axes = len(weight.dims) - 2
            if axes > 2:
                return f"a convolution over {axes} axes isn't quantized"
            if node.op_type == "ConvTranspose":
                return _reason_of_transposed(attributes)
            return ""
        if len(weight.dims) != 2:
            return f"its weight has {len(weight.dims)} axes; dense layers need 2"
        if attributes.get("transA", 0):
            return "its input is transposed"
        bias = self._bias(node)
        if bias is not None and bias.size not in (1, self.shapes[node.output[0]][-1]):
            return f"its bias has the shape {bias.shape}"
        return ""

    def _weight(self, node: NodeProto) -> np.ndarray:
        return numpy_helper.to_array(self.constants[node.input[1]]).copy()

    def _bias(self, node: NodeProto) -> np.ndarray | None:
        if len(node.input) < 3 or not node.input[2]:
            return None
        return numpy_helper.to_array(self.constants[node.input[2]]).copy()

    def _conv(self, node: NodeProto) -> Layer:
        attributes, weight = attributes_of(node), self._weight(node)
        kernel, ones = weight.shape[2:], (1,) * (weight.ndim - 2)
        strides, dilation = (tuple(attributes.get(k, ones)) for k in ("strides", "dilations"))
        padding = tuple(attributes.get("pads", (0,) * 2 * len(ones)))
        mode = attributes.get("auto_pad", b"NOTSET")
        if mode in (b"SAME_UPPER", b"SAME_LOWER"):
            sizes = self.shapes[node.input[0]][2:]
            padding = _same_padding(sizes, kernel, strides, dilation, mode)
        elif mode == b"VALID":
            padding = (0,) * 2 * len(ones)
        output_padding = None
        if node.op_type == "ConvTranspose":
            output_padding = tuple(attributes.get("output_padding", (0,) * len(ones)))
            weight = np.ascontiguousarray(weight.swapaxes(0, 1))
        return Layer(
            node.name,
            node.input[0],
            node.output[0],
            weight,
            self._bias(node),
            strides,
            padding,
            dilation,
            attributes.get("group", 1),
            output_padding,
        )

    def _dense(self, node: NodeProto) -> Layer:
        attributes = attributes_of(node)
        weight = self._weight(node) * np.float32(attributes.get("alpha", 1))
        if not attributes.get("transB", 0):
            weight = weight.T
        bias = self._bias(node)
        if bias is not None:
            bias = np.broadcast_to(bias.reshape(-1), len(weight))
            bias = (bias * np.float32(attributes.get("beta", 1))).copy()
        return Layer(node.name, node.input[0], node.output[0], weight.copy(), bias)

    def _steps(self) -> list[Step]:
        layer_of = {layer.output: layer.name for layer in self.layers}
        return [
            Step(
                tuple(name for name in node.input if name and name not in self.constants),
                tuple(node.output),
                layer_of.get(node.output[0], ""),
                node.op_type == "Mul",
            )
            for node in self.model.graph.node
        ]


def _simplified(model: ModelProto) -> ModelProto:
    """Fold constants and batch-norms by ONNX Runtime, which leaves standard operators."""
    opset = opset_of(model, STANDARD)
    if opset < MIN_OPSET:
        raise UnsupportedError(
            "quantize",
            f"the model is of operator set {opset}",
            f"Convert it to {MIN_OPSET} or later with onnx.version_converter",
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "simplified.onnx"
        _session(model, path)
        simplified = onnx.load(path)
    used = {node.domain for node in simplified.graph.node} | {""}
    imports = [o for o in simplified.opset_import if o.domain in used]
    del simplified.opset_import[:]
    simplified.opset_import.extend(imports)
    return simplified


def _session(model: ModelProto, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimized is not None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(optimized)
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common class.
        raise UnsupportedError(
            "quantize", f"ONNX Runtime can't run the model: {first_line(error)}", "Export it again"
        ) from error


def _with_outputs(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """Return the model with other outputs; ONNX Runtime finds out their types."""
    result = ModelProto()
    result.CopyFrom(model)
    del result.graph.output[:]
    result.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    return result


def _name_nodes(nodes: Iterable[NodeProto]) -> None:
    """Give nodes without a name, or with that of another one, the name of their output."""
    taken: set[str] = set()
    for node in nodes:
        if not node.name or node.name in taken:
            node.name = node.output[0]
        taken.add(node.name)


def _reason_of_transposed(attributes: dict) -> str:
    if attributes.get("group", 1) > 1:
        return "a transposed convolution in groups isn't quantized"
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return f"its auto_pad is {attributes['auto_pad'].decode()}"
    return "it states its output shape" if "output_shape" in attributes else ""


def _same_padding(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
    mode: bytes,
) -> tuple[int, ...]:
    """Pads that make the output ``ceil(size / stride)``; an odd one goes to one end."""
    totals = [
        max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        for size, k, s, d in zip(sizes, kernel, strides, dilation)
    ]
    less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (*more, *less) if mode == b"SAME_LOWER" else (*less, *more)
