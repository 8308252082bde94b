"""ResNet-18 as ONNX models, float32 and int8, from the weights of the float twin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn

from tvm_bitenc.nn import ResNet18
from tvm_bitenc.nn.models.resnet import BasicBlock

from .peers import IR_VERSION, OPSETS, random_array

IMAGE_SHAPE = (1, 3, 224, 224)
CALIBRATION_IMAGES = 4


def float_network(model: ResNet18) -> onnx.ModelProto:
    """ONNX model of a float `ResNet18` in eval mode, batch-norms folded into the convolutions."""
    graph = _GraphWriter()
    x = graph.add("Relu", graph.convolution("x", model.conv1, model.bn1))
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for stage in (model.stage1, model.stage2, model.stage3, model.stage4):
        for block in stage:
            x = graph.block(x, block)
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    head = [graph.constant(parameter) for parameter in model.classifier.parameters()]
    x = graph.add("Gemm", x, *head, transB=1)
    return graph.model(x, (1, model.classifier.out_features))


def write_int8_network(float_path: Path, path: Path) -> None:
    """Quantize a float network: u8 activations, s8 weights per channel, random calibration."""
    quantize_static(
        float_path,
        path,
        _RandomImages(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


class _RandomImages(CalibrationDataReader):
    def __init__(self):
        self.images = iter(
            {"x": random_array(IMAGE_SHAPE, np.float32, seed)} for seed in range(CALIBRATION_IMAGES)
        )

    def get_next(self) -> dict | None:
        """Return the next image, None after the last."""
        return next(self.images, None)


class _GraphWriter:
    """Adds nodes one after another; a node is known by the name of its output."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def add(self, op: str, *inputs: str, **attributes) -> str:
        """Add a node of one output."""
        output = f"{op}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def constant(self, value: Tensor) -> str:
        """Add a float32 constant."""
        name = f"constant{len(self.constants)}"
        array = value.detach().numpy().astype(np.float32)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def convolution(self, x: str, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> str:
        """Add a convolution with the batch-norm behind it."""
        factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        weight = conv.weight.double() * factor.reshape(-1, 1, 1, 1)
        bias = norm.bias.double() - norm.running_mean.double() * factor
        return self.add(
            "Conv",
            x,
            self.constant(weight),
            self.constant(bias),
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
            pads=[*conv.padding, *conv.padding],
        )

    def block(self, x: str, block: BasicBlock) -> str:
        """Add a residual block."""
        y = self.add("Relu", self.convolution(x, block.conv1, block.bn1))
        y = self.convolution(y, block.conv2, block.bn2)
        if isinstance(block.shortcut, nn.Sequential):
            x = self.convolution(x, *block.shortcut)
        return self.add("Relu", self.add("Add", y, x))

    def model(self, output: str, shape: tuple[int, ...]) -> onnx.ModelProto:
        """Make the model from float images `IMAGE_SHAPE` to `output`."""
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE_SHAPE)]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)]
        graph = helper.make_graph(self.nodes, "resnet18", inputs, outputs, self.constants)
        opsets = [helper.make_opsetid("", OPSETS[""])]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
