"""Float layers give ONNX Runtime's numbers, whatever their attributes; nodes name the layers."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvm_bitenc as be
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.transform import no_lowering

ort = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
rng = np.random.default_rng(0)


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)


def constant(name: str, values, dtype=np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def model_of(nodes, weights, x_shape, opset=13, outputs=None) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, x_shape)
    names = outputs or [node.output[0] for node in nodes]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    graph = helper.make_graph(nodes, "test", [x], results, weights)
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model)
    for value in inferred.graph.output:
        value.type.tensor_type.shape.SetInParent()  # Where a wrong model has none to infer.
    return inferred


def check(model, x, rtol=1e-5):
    """Compare all outputs with ONNX Runtime's, shapes too; returns the compiled model."""
    lib = be.build(be.from_onnx(model), pipeline=no_lowering)
    found = lib(x)
    found = found if isinstance(found, tuple) else (found,)
    session = ort.InferenceSession(model.SerializeToString())
    for value, a, b in zip(model.graph.output, found, session.run(None, {"x": x})):
        assert a.shape == b.shape, value.name
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol, err_msg=value.name)
    return lib


def node(op: str, name: str, inputs=("x",), **attributes) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [name], name, **attributes)


WINDOWS = [
    dict(kernel_shape=[3, 2]),
    dict(kernel_shape=[3, 2], strides=[2, 3], pads=[1, 0, 0, 1]),
    dict(kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    dict(kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
    dict(kernel_shape=[2, 2], strides=[2, 2], auto_pad="VALID"),
]


def test_pools():
    x = rng.normal(size=(2, 3, 9, 10)).astype(np.float32)
    nodes = []
    for i, window in enumerate(WINDOWS):
        nodes.append(node("MaxPool", f"max{i}", **window))
        for count in (0, 1):
            options = dict(count_include_pad=count)
            nodes.append(node("AveragePool", f"average{i}_{count}", **window, **options))
    nodes.append(node("MaxPool", "dilated", kernel_shape=[2, 2], dilations=[2, 3]))
    nodes.append(node("MaxPool", "ceil", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1))
    nodes += [node("GlobalAveragePool", "global_average"), node("GlobalMaxPool", "global_max")]
    check(model_of(nodes, [], x.shape), x)


def test_convolutions():
    x = rng.normal(size=(2, 4, 9, 10)).astype(np.float32)
    nodes, weights = [], [weight("bias", 6), weight("bias2", 4)]
    for i, window in enumerate([*WINDOWS, dict(kernel_shape=[2, 2], dilations=[2, 3])]):
        for groups in (1, 2):
            name = f"conv{i}_{groups}"
            weights.append(weight(f"{name}_w", 6, 4 // groups, *window["kernel_shape"]))
            inputs = ["x", f"{name}_w", "bias"]
            nodes.append(node("Conv", name, inputs, group=groups, **window))
    for i, window in enumerate([
        dict(strides=[2, 3], pads=[1, 0, 0, 1]),
        dict(strides=[2, 2], output_padding=[1, 0], dilations=[1, 2], group=2),
    ]):  # fmt: skip
        weights.append(weight(f"t{i}_w", 4, 4 // window.get("group", 1), 3, 2))
        nodes.append(node("ConvTranspose", f"t{i}", ["x", f"t{i}_w", "bias2"], **window))
    check(model_of(nodes, weights, x.shape), x)


def test_one_dimension():
    x = rng.normal(size=(2, 4, 9)).astype(np.float32)
    weights = [weight("w", 6, 4, 3), weight("t", 4, 5, 2), weight("b", 6)]
    nodes = [
        node("Conv", "conv", ["x", "w", "b"], strides=[2], auto_pad="SAME_UPPER"),
        node("ConvTranspose", "transposed", ["x", "t"], strides=[2]),
        node("MaxPool", "pool", kernel_shape=[3], strides=[2]),
    ]
    check(model_of(nodes, weights, x.shape), x)


def test_batch_normalization_is_onnx_runtimes_bit_for_bit(same):
    x = rng.normal(size=(4, 64, 8, 8)).astype(np.float32)
    variance = numpy_helper.from_array(rng.uniform(0.1, 3, 64).astype(np.float32), "v")
    weights = [weight("g", 64), weight("b", 64), weight("m", 64), variance]
    model = model_of([node("BatchNormalization", "y", "xgbmv", epsilon=1e-3)], weights, x.shape)
    lib = be.build(be.from_onnx(model), pipeline=no_lowering)
    (expected,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    assert same(lib(x), expected)


def test_matrix_products():
    x = rng.normal(size=(5, 6)).astype(np.float32)
    weights = [weight("w", 6, 4), weight("t", 4, 6), weight("u", 5, 3), weight("b", 4)]
    weights += [weight("s", 1), weight("c", 3)]
    nodes = [
        node("Gemm", "plain", ["x", "w"]),
        node("Gemm", "factors", ["x", "t", "b"], transB=1, alpha=0.3, beta=2.0),
        node("Gemm", "no_beta", ["x", "w", "s"], beta=0.0),
        node("Gemm", "transposed", ["x", "u", "c"], transA=1),
        node("MatMul", "matmul", ["x", "w"]),
    ]
    check(model_of(nodes, weights, x.shape), x)


def test_elementwise_and_shapes():
    x = rng.normal(size=(2, 4, 6, 6)).astype(np.float32)
    weights = [
        constant("low", -0.5, np.float32), constant("high", 0.25, np.float32),
        constant("slope", rng.uniform(0, 1, (4, 1, 1)), np.float32), constant("axis", [1]),
        constant("half", [1.0, 1.0, 2.0, 2.0], np.float32), constant("ends", [0, -1]),
        constant("first", [2]), constant("to", [4]),
    ]  # fmt: skip
    nodes = [
        node("Clip", "both", ["x", "low", "high"]),
        node("Clip", "above", ["x", "", "high"]),
        node("Clip", "below", ["x", "low"]),
        node("PRelu", "prelu", ["x", "slope"]),
        node("LeakyRelu", "leaky", alpha=0.1),
        node("HardSigmoid", "hard_sigmoid", alpha=0.3),
        node("HardSwish", "hard_swish"),
        node("Softmax", "softmax", axis=1),
        node("Resize", "nearest", ["x", "", "half"], mode="nearest",
             coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        node("Unsqueeze", "unsqueezed", ["x", "axis"]),
        node("Squeeze", "squeezed", ["unsqueezed", "axis"]),
        node("Reshape", "reshaped", ["x", "ends"]),
        node("Flatten", "flat", axis=2),
        node("Concat", "concat", ["x", "both"], axis=1),
        node("Slice", "sliced", ["x", "first", "to", "axis"]),
        node("Split", "split", axis=1),
        node("Identity", "same"),
    ]  # fmt: skip
    nodes[-2].output.append("split2")
    check(model_of(nodes, weights, x.shape, opset=14), x)


def test_shape_arithmetic_is_folded():
    """What exporters write for ``x.view(x.size(0), -1)`` and for flips of sizes, as constants."""
    x = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    weights = [constant("zero", [0]), constant("one", [1]), constant("minus", [-1])]
    weights += [constant("two", [2]), constant("four", [4])]
    nodes = [
        node("Shape", "shape"),
        node("Slice", "batch", ["shape", "zero", "one"]),
        node("Concat", "flat", ["batch", "minus"], axis=0),
        node("Reshape", "y", ["x", "flat"]),
        node("Slice", "sizes", ["shape", "two", "four"]),
        node("ReduceProd", "pixels", ["sizes"], keepdims=1),
        node("Slice", "channels", ["shape", "one", "two"]),
        node("Concat", "rows", ["batch", "channels", "pixels"], axis=0),
        node("Reshape", "z", ["x", "rows"]),
    ]
    model = model_of(nodes, weights, x.shape, outputs=["y", "z"])
    check(model, x)
    ops = {str(op) for op in onnx_ops(be.from_onnx(model))}
    assert ops == {"relax.reshape"}


def onnx_ops(mod):
    bindings = mod["main"].body.blocks[0].bindings
    return [b.value.op.name for b in bindings if hasattr(b.value, "op")]


def test_layers_are_named_after_their_nodes():
    weights = [weight("w", 6, 4, 3, 3), weight("v", 6, 6, 3, 3)]
    nodes = [node("Conv", "/block.1/Conv", ["x", "w"]), node("Conv", "y", ["/block.1/Conv", "v"])]
    nodes[1].name = ""
    model = model_of(nodes, weights, (1, 4, 8, 8), outputs=["y"])
    report = be.build(be.from_onnx(model)).report()
    # TVM's names have no dots, and number a variable of the same name: the output behind the node.
    assert [layer.name for layer in report.float_layers] == ["/block_1/Conv", "y1"]


@pytest.mark.parametrize("attributes, message", [
    (dict(strides=[0, 1]), "conv.*strides"),
    (dict(dilations=[1, 2**40]), "conv.*dilations"),
    (dict(pads=[0, 0, -1, 0]), "conv.*pads"),
    (dict(pads=[0, 0]), "conv.*pads.*expected 4"),
    (dict(kernel_shape=[2, 2]), "conv.*kernel_shape.*its weight has"),
    (dict(group=0), "conv.*group"),
    (dict(dilations=[9, 9]), "conv.*its input is"),
    (dict(auto_pad="SOME"), "conv.*auto_pad"),
    (dict(group=3), "Conv node 'conv': TVM can't import it"),
])  # fmt: skip
def test_attributes_out_of_range_are_refused(attributes, message):
    nodes = [node("Conv", "conv", ["x", "w"], **attributes)]
    model = model_of(nodes, [weight("w", 6, 4, 3, 3)], (1, 4, 8, 8))
    with pytest.raises(UnsupportedError, match=message):
        be.from_onnx(model)


@pytest.mark.parametrize("values, message", [
    (dict(training_mode=1), "training mode"),
    (dict(epsilon=float("nan")), "NaN"),
])  # fmt: skip
def test_batch_normalization_that_is_refused(values, message):
    weights = [weight(name, 4) for name in "gbmv"]
    nodes = [node("BatchNormalization", "norm", "xgbmv", **values)]
    model = model_of(nodes, weights, (1, 4, 2, 2), opset=15)
    with pytest.raises(UnsupportedError, match=f"BatchNormalization node 'norm'.*{message}"):
        be.from_onnx(model)
