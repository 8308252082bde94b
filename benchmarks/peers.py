"""Layers in ONNX Runtime, OpenVINO and torch, each as fast as they can run them.

A layer here is what a layer of ours is: convolution, batch-norm (folded into it) and activation,
from the form in which the layer before it leaves its output to the form in which the next wants
its input. For ONNX Runtime's float32 that is its own blocked layout, and for int8 it is NHWC.
OpenVINO has no model of a layer by itself: it gets a network of one convolution, bytes in NHWC to
bytes in NHWC, whose transposes its compiler makes nothing of.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from .workloads import Workload

OPSETS = {"": 13, "com.microsoft": 1, "com.microsoft.nchwc": 1}
IR_VERSION = 8
ALL, DISABLED = "ORT_ENABLE_ALL", "ORT_DISABLE_ALL"
ELEMENT_TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}

Run = Callable[[], object]


def layer_peers(workload: Workload, threads: int = 1, seed: int = 0) -> dict[str, Run]:
    """Return one run of the layer by each peer."""
    return {
        "ort int8": onnxruntime_run(int8_layer(workload, seed), threads=threads),
        "ov int8": openvino_run(qdq_layer(workload, seed), threads=threads),
        "ort fp32": onnxruntime_run(*float_layer(workload, threads, seed), threads=threads),
        "torch fp32": torch_run(workload, threads, seed),
    }


def session(
    model: onnx.ModelProto | Path, threads: int = 1, level: str = ALL, save: Path | None = None
) -> onnxruntime.InferenceSession:
    """Load a model or its file; with `save`, write what ONNX Runtime made of it there."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = 3
    if save is not None:
        options.optimized_model_filepath = str(save)
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def onnxruntime_run(
    model: onnx.ModelProto | Path, level: str = ALL, *, threads: int = 1, seed: int = 0
) -> Run:
    """Return one run of a model of one input and one output, both in place."""
    loaded = session(model, threads, level)
    (given,), (made,) = loaded.get_inputs(), loaded.get_outputs()
    binding = loaded.io_binding()
    value = random_array(given.shape, ELEMENT_TYPES[given.type], seed)
    source = onnxruntime.OrtValue.ortvalue_from_numpy(value)
    result = onnxruntime.OrtValue.ortvalue_from_shape_and_type(made.shape, ELEMENT_TYPES[made.type])
    binding.bind_ortvalue_input(given.name, source)
    binding.bind_ortvalue_output(made.name, result)

    def run(_alive: object = source) -> onnxruntime.OrtValue:  # The binding doesn't hold its input.
        loaded.run_with_iobinding(binding)
        return result

    return run


def openvino_run(model: onnx.ModelProto | Path, *, threads: int = 1, seed: int = 0) -> Run:
    """Return one run of a model of one input and one output, both in place; without bfloat16."""
    loaded = compiled(model, threads)
    (given,) = loaded.inputs
    value = random_array(given.shape, given.element_type.to_dtype().type, seed)
    request = loaded.create_infer_request()
    request.set_input_tensor(openvino.Tensor(value, shared_memory=True))

    def run(_alive: object = value) -> np.ndarray:  # Nor does a tensor the memory that it shares.
        return request.infer(share_outputs=True)[0]

    return run


def compiled(model: onnx.ModelProto | Path, threads: int = 1) -> openvino.CompiledModel:
    """Compile a model or its file by OpenVINO, for least latency."""
    hints = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = model
        if not isinstance(model, Path):
            path = Path(folder) / "model.onnx"
            onnx.save(model, path)
        core = openvino.Core()
        return core.compile_model(core.read_model(path), "CPU", hints)


def random_array(shape, dtype, seed: int = 0) -> np.ndarray:
    """Any bytes, or normally distributed floats."""
    rng = np.random.default_rng(seed)
    if dtype is np.uint8:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.standard_normal(shape, dtype=np.float32)


def float_layer(workload: Workload, threads: int = 1, seed: int = 0) -> tuple[onnx.ModelProto, str]:
    """float32 layer, and the optimization level to load it with."""
    weight = random_array(workload.weight_shape, np.float32, seed)
    bias = np.zeros(workload.out_channels, np.float32)
    if workload.kind == "dense":
        constants = {"w": weight.reshape(weight.shape[:2]), "b": bias}
        node = helper.make_node("Gemm", ["x", "w", "b"], ["product"], transB=1)
        shapes = [(workload.batch, s) for s in (workload.in_channels, workload.out_channels)]
    else:
        constants = {"w": weight, "b": bias}
        node = helper.make_node("Conv", ["x", "w", "b"], ["product"], **_window(workload))
        shapes = _image_shapes(workload)
    relu = helper.make_node("Relu", ["product"], ["y"])
    return in_own_layout(_model([node, relu], constants, *shapes, TensorProto.FLOAT), threads)


def in_own_layout(model: onnx.ModelProto, threads: int = 1) -> tuple[onnx.ModelProto, str]:
    """Let a convolution take and give ONNX Runtime's blocked layout, as between two of them.

    By itself it would reorder input and output of a model of one layer. Sizes stay the same.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        session(model, threads, ALL, save=path)
        optimized = onnx.load(path)
    kernels = [node for node in optimized.graph.node if not node.op_type.startswith("Reorder")]
    if len(kernels) != 1:
        return model, ALL
    kernels[0].input[0], kernels[0].output[0] = "x", "y"
    del optimized.graph.node[:]
    optimized.graph.node.extend(kernels)
    return optimized, DISABLED


def int8_layer(workload: Workload, seed: int = 0) -> onnx.ModelProto:
    """Layer of u8 activations and s8 weights per channel, u8 output, channels last."""
    weight = np.random.default_rng(seed).integers(-127, 128, workload.weight_shape, dtype=np.int8)
    channels = workload.out_channels
    quantizers = {
        "x_scale": np.float32(0.02),
        "x_zero": np.uint8(0),
        "w": weight,
        "w_scale": np.full(channels, 0.01, np.float32),
        "w_zero": np.zeros(channels, np.int8),
        "bias": np.zeros(channels, np.int32),
        "y_scale": np.float32(0.5),
        "y_zero": np.uint8(0),
    }
    x, w, bias, y = ([n for n in ("x", *quantizers) if n[0] == letter] for letter in "xwby")
    if workload.kind == "dense":
        quantizers["w"] = np.ascontiguousarray(weight.reshape(weight.shape[:2]).T)
        node = helper.make_node("QGemm", [*x, *w, *bias, *y], ["y"], domain="com.microsoft")
        shapes = [(workload.batch, s) for s in (workload.in_channels, channels)]
    else:
        node = helper.make_node(
            "QLinearConv",
            [*x, *w, *y, *bias],
            ["y"],
            domain="com.microsoft",
            channels_last=1,
            **_window(workload),
        )
        shapes = [(n, h, w, c) for n, c, h, w in _image_shapes(workload)]
    return _model([node], quantizers, *shapes, TensorProto.UINT8)


def qdq_layer(workload: Workload, seed: int = 0) -> onnx.ModelProto:
    """The layer of `int8_layer` in standard operators between quantizers, bytes in and out."""
    weight = np.random.default_rng(seed).integers(-127, 128, workload.weight_shape, dtype=np.int8)
    channels, is_dense = workload.out_channels, workload.kind == "dense"
    constants = {
        "x_scale": np.float32(0.02),
        "x_zero": np.uint8(0),
        "w": weight.reshape(weight.shape[:2]) if is_dense else weight,
        "w_scale": np.full(channels, 0.01, np.float32),
        "w_zero": np.zeros(channels, np.int8),
        "bias": np.zeros(channels, np.float32),
        "y_scale": np.float32(0.5),
        "y_zero": np.uint8(0),
    }
    if is_dense:
        shapes = [(workload.batch, s) for s in (workload.in_channels, channels)]
        product = [helper.make_node("Gemm", ["real", "weight", "bias"], ["sum"], transB=1)]
    else:
        shapes = [(n, h, w, c) for n, c, h, w in _image_shapes(workload)]
        operands = ["nchw", "weight", "bias"]
        product = [
            helper.make_node("Transpose", ["real"], ["nchw"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", operands, ["nchw_sum"], **_window(workload)),
            helper.make_node("Transpose", ["nchw_sum"], ["sum"], perm=[0, 2, 3, 1]),
        ]
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "x_scale", "x_zero"], ["real"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["weight"], axis=0),
        *product,
        helper.make_node("QuantizeLinear", ["sum", "y_scale", "y_zero"], ["y"]),
    ]
    return _model(nodes, constants, *shapes, TensorProto.UINT8)


def torch_run(workload: Workload, threads: int = 1, seed: int = 0) -> Run:
    """float32 layer in torch, channels last: the faster of its layouts for all of these layers."""
    torch.set_num_threads(threads)
    weight = torch.from_numpy(random_array(workload.weight_shape, np.float32, seed))
    bias = torch.zeros(workload.out_channels)
    shape = _image_shapes(workload)[0]
    x = torch.from_numpy(random_array(shape, np.float32, seed))
    if workload.kind == "dense":
        x, weight = x.flatten(1), weight.flatten(1)
        return torch.inference_mode()(lambda: functional.linear(x, weight, bias).relu_())
    x, weight = (t.to(memory_format=torch.channels_last) for t in (x, weight))
    window = (workload.stride, workload.padding, 1, workload.groups)
    return torch.inference_mode()(lambda: functional.conv2d(x, weight, bias, *window).relu_())


def _window(workload: Workload) -> dict:
    return dict(
        kernel_shape=[workload.kernel] * 2,
        pads=[workload.padding] * 4,
        strides=[workload.stride] * 2,
        group=workload.groups,
    )


def _image_shapes(workload: Workload) -> list[tuple[int, int, int, int]]:
    """NCHW of input and output."""
    batch, size, out_size = workload.batch, workload.size, workload.out_size
    return [
        (batch, workload.in_channels, size, size),
        (batch, workload.out_channels, out_size, out_size),
    ]


def _model(nodes, constants: dict[str, np.ndarray], shape, out_shape, dtype) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    inputs = [helper.make_tensor_value_info("x", dtype, shape)]
    outputs = [helper.make_tensor_value_info("y", dtype, out_shape)]
    graph = helper.make_graph(nodes, "peer", inputs, outputs, initializers)
    opsets = [helper.make_opsetid(domain, number) for domain, number in OPSETS.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
