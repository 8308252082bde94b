"""What can't be imported says which node, why, and what to do; broken files never do worse."""

import random
import tracemalloc

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import tvm_bitenc as be
from tvm_bitenc.errors import BitencError, UnsupportedError

GENERAL = "qonnx.custom_op.general"


def model_of(nodes, weights=(), shape=(1, 4), opset=13, kind=TensorProto.FLOAT, **options):
    x = helper.make_tensor_value_info("x", kind, shape)
    y = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    y.type.tensor_type.shape.SetInParent()
    tensors = [numpy_helper.from_array(np.asarray(v), name) for name, v in dict(weights).items()]
    graph = helper.make_graph(nodes, "test", [x], [y], tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(GENERAL, 2)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **options)


def f32(*values):
    return np.float32(values[0] if len(values) == 1 else values)


def quant(**changed):
    """A `Quant` node with some of its inputs or attributes replaced."""
    inputs = dict(scale=f32(0.5), zero=f32(0), bits=f32(4))
    attributes = dict(signed=1, narrow=0, rounding_mode="ROUND")
    for name, value in changed.items():
        (inputs if name in inputs else attributes)[name] = value
    inputs = {name: value for name, value in inputs.items() if value is not None}
    attributes = {name: value for name, value in attributes.items() if value is not None}
    names = ["x", *(n if n in inputs else "x" for n in ("scale", "zero", "bits"))]
    node = helper.make_node("Quant", names, ["y"], "q", domain=GENERAL, **attributes)
    return model_of([node], inputs)


def test_what_a_quant_may_not_be():
    for changed, message in [
        (dict(scale=f32(0)), "scale is zero, negative, not finite"),
        (dict(scale=f32(-1)), "Use s > 0"),
        (dict(scale=f32(np.nan)), "Use s > 0"),
        (dict(scale=np.float64(0.5)), "no float32"),
        (dict(scale=None), "scale is computed at run time"),
        (dict(zero=None), "zero point is computed at run time"),
        (dict(zero=f32(8)), r"outside the code range -8 \.\.\. 7"),
        (dict(zero=f32(0.3)), "multiple of 1/2"),
        (dict(bits=f32(16)), "bits = 16 is outside 1..8"),
        (dict(bits=f32(2.5)), "bit width is 2.5"),
        (dict(bits=f32(0)), "bit width"),
        (dict(bits=f32(4, 4)), "bit width"),
        (dict(bits=f32(1), zero=f32(-1)), "1 signed bit and a zero point"),
        (dict(bits=f32(1), signed=0, narrow=1), "a single level"),
        (dict(signed=None), "'signed' isn't 0 or 1"),
        (dict(narrow=2), "'narrow' isn't 0 or 1"),
        (dict(rounding_mode="STOCHASTIC"), "rounding mode is 'STOCHASTIC'"),
        (dict(scale=f32(1, 2)), r"shape \(2,\) doesn't match its input \(1, 4\)"),
        (dict(scale=np.ones((1, 1, 4), np.float32)), "doesn't match its input"),
    ]:
        with pytest.raises(UnsupportedError, match=rf"^Quant node 'q': .*{message}"):
            be.from_onnx(quant(**changed))


def qdq(weights, opset=21, shape=(1, 4), kind=TensorProto.FLOAT, **attributes):
    names = list(weights)
    q = helper.make_node("QuantizeLinear", ["x", *names], ["xq"], "q", **attributes)
    dq = helper.make_node("DequantizeLinear", ["xq", *names], ["y"], "dq", **attributes)
    return model_of([q, dq], weights, shape, opset, kind)


def test_what_a_pair_may_not_be():
    mixed = qdq(dict(s=f32(1), z=np.uint8(0)))
    mixed.graph.initializer.append(numpy_helper.from_array(np.int8(0), "other"))
    mixed.graph.node[1].input[2] = "other"
    for model, message in [
        (qdq(dict(s=f32(0))), "Use s > 0"),
        (qdq(dict(s=f32(np.inf))), "Use s > 0"),
        (
            qdq(dict(s=f32(1), z=np.int16(0))),
            "int16 codes.*Use one of int8, uint8, int4, uint4",
        ),
        (qdq(dict(s=np.ones((1, 2), np.float32)), block_size=2), "quantizes in blocks"),
        (qdq(dict(s=f32(1, 2, 3)), axis=1), "doesn't match its input"),
        (qdq(dict(s=f32(1, 2, 3, 4)), axis=5), "doesn't match axis 5"),
        (qdq(dict(s=f32(1, 2, 3, 4), z=np.int8([1, 2]))), "other zero points than scales"),
        (qdq(dict(s=f32(1, 2, 3, 4), z=np.int8([1, 2, 3, 4]))), "zero point per channel"),
        (mixed, "DequantizeLinear node 'dq': has uint8 codes and a zero point of int8"),
    ]:
        with pytest.raises(BitencError, match=message):
            be.from_onnx(model)


def test_trunc_and_others():
    parameters = dict(s=f32(1), z=f32(1), n=f32(8), t=f32(4), m=f32(4))
    attributes = dict(domain=GENERAL, rounding_mode="FLOOR", signed=0, narrow=0)
    trunc = helper.make_node("Trunc", ["x", *parameters], ["y"], "t0", **attributes)
    with pytest.raises(UnsupportedError, match="^Trunc node 't0': has a zero point"):
        be.from_onnx(model_of([trunc], parameters))
    with pytest.raises(UnsupportedError, match="^Trunc node 't0': drops a factor"):
        be.from_onnx(model_of([trunc], parameters | dict(z=f32(0), t=f32(1e30))))
    bipolar = helper.make_node("BipolarQuant", ["x", "s"], ["y"], "b", domain=GENERAL)
    with pytest.raises(UnsupportedError, match="^BipolarQuant node 'b': .*Use s > 0"):
        be.from_onnx(model_of([bipolar], dict(s=f32(0))))


def test_ops_without_a_converter():
    unknown = helper.make_node("QuantLSTM", ["x"], ["y"], "lstm", domain=GENERAL)
    with pytest.raises(UnsupportedError, match="QuantLSTM node 'lstm'.*no converter.*QDQ or QONNX"):
        be.from_onnx(model_of([unknown]))
    weights = dict(s=f32(1), z=np.uint8(0))
    node = helper.make_node("QLinearSigmoid", ["x", "s", "z", "s"], ["y"], domain=GENERAL)
    with pytest.raises(UnsupportedError, match="QLinearSigmoid node 'y'"):
        be.from_onnx(model_of([node], weights))
    inner = helper.make_node("Relu", ["x"], ["inner"])
    branch = helper.make_graph(
        [inner], "g", [], [helper.make_tensor_value_info("inner", 1, (1, 4))]
    )
    loop = helper.make_node("Loop", ["n", "c"], ["y"], "loop", body=branch)
    with pytest.raises(UnsupportedError, match="Loop node 'loop': has a graph inside"):
        be.from_onnx(model_of([loop], dict(c=np.array(True), n=np.array(2))))


def test_shapes():
    relu = helper.make_node("Relu", ["x"], ["y"])
    dynamic = model_of([relu], shape=("batch", 3, "height", -1))
    with pytest.raises(UnsupportedError, match=r"input 'x'.*\(batch, 3, height, \?\).*shapes="):
        be.from_onnx(dynamic)
    for shapes, message in [
        ({"z": (1,)}, "names no input. The inputs are x"),
        ({"x": (1, 3, 8)}, "doesn't fit"),
        ({"x": (1, 4, 8, 8)}, "doesn't fit"),
        ({"x": (1, 3, 8, 0)}, "one positive size per axis"),
        ({"x": (1, 3, 2**20, 2**20)}, "Use a smaller one"),
    ]:
        with pytest.raises(BitencError, match=message):
            be.from_onnx(dynamic, shapes)
    ty = be.from_onnx(dynamic, {"x": (2, 3, 8, 9)})["main"].params[0].ty
    assert [int(size) for size in ty.shape] == [2, 3, 8, 9]
    assert dynamic.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"  # As it was.


def test_inputs_and_operator_sets():
    relu = helper.make_node("Relu", ["x"], ["y"])
    with pytest.raises(UnsupportedError, match="input 'x': is FLOAT16.*float32 inputs"):
        be.from_onnx(model_of([relu], kind=TensorProto.FLOAT16))
    with pytest.raises(UnsupportedError, match="operator set 22.*version_converter"):
        be.from_onnx(model_of([relu], opset=22))


def test_files(tmp_path):
    with pytest.raises(BitencError, match="doesn't exist"):
        be.from_onnx(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(BitencError, match="text.onnx.*can't be read.*Export it again"):
        be.from_onnx(tmp_path / "text.onnx")
    with pytest.raises(BitencError, match="isn't a valid ONNX model"):
        be.from_onnx(onnx.ModelProto())
    with pytest.raises(BitencError, match="int is no model"):
        be.from_onnx(1)


def test_a_small_file_cannot_ask_for_all_memory():
    huge = dict(shape=np.int64([2**20, 2**20]))
    node = helper.make_node("ConstantOfShape", ["shape"], ["y"], "zeros")
    tracemalloc.start()
    with pytest.raises(UnsupportedError, match="ConstantOfShape node 'zeros'.*elements"):
        be.from_onnx(model_of([node], huge))
    assert tracemalloc.get_traced_memory()[1] < 1e8
    tracemalloc.stop()


def network() -> bytes:
    """Both kinds of quantizers, a convolution, pooling, a matrix product, shape arithmetic."""
    rng = np.random.default_rng(0)
    weights = dict(
        s=f32(0.25), z=np.uint8(128), w=rng.integers(-8, 8, (4, 3, 3, 3)).astype(np.int8),
        ws=f32(0.1, 0.2, 0.3, 0.4), wz=np.zeros(4, np.int8), zero=f32(0), bits=f32(3),
        m=rng.normal(size=(16, 5)).astype(np.float32), first=np.int64([0]), one=np.int64([1]),
        rest=np.int64([-1]),
    )  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wf"], axis=0),
        helper.make_node("Conv", ["a", "wf"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Quant", ["r", "s", "zero", "bits"], ["q"], domain=GENERAL, signed=0,
                         narrow=0, rounding_mode="ROUND"),
        helper.make_node("MaxPool", ["q"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Shape", ["p"], ["shape"]),
        helper.make_node("Slice", ["shape", "first", "one"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["sizes"], axis=0),
        helper.make_node("Reshape", ["p", "sizes"], ["f"]),
        helper.make_node("Quant", ["m", "s", "zero", "bits"], ["mq"], domain=GENERAL, signed=1,
                         narrow=1, rounding_mode="ROUND"),
        helper.make_node("MatMul", ["f", "mq"], ["y"]),
    ]  # fmt: skip
    return model_of(nodes, weights, (1, 3, 8, 8)).SerializeToString()


NETWORK = network()


@pytest.mark.parametrize("seed", range(4))
def test_two_hundred_broken_files(seed, tmp_path):
    """Bytes replaced, flipped, dropped or added: a clean error, or a module that has a type."""
    source, path, modules = random.Random(seed), tmp_path / "broken.onnx", 0
    for _ in range(50):
        content = bytearray(NETWORK)
        for _ in range(source.choice((1, 1, 2, 8))):
            at, kind = source.randrange(len(content)), source.randrange(6)
            if kind == 0:
                del content[at : at + source.randrange(1, 8)]
            elif kind == 1:
                content[at:at] = source.randbytes(source.randrange(1, 8))
            elif kind == 2:
                content[at] ^= 1 << source.randrange(8)
            else:
                content[at] = source.randrange(256)
        path.write_bytes(content)
        try:
            modules += be.from_onnx(path)["main"].ret_ty is not None
        except BitencError as error:
            assert str(error)
    assert modules > 2  # Some survive: it isn't the parser alone that is tested.


INTEGERS = st.sampled_from([0, 1, -1, 2, 3, 7, 2**31, -(2**31), 2**62, -(2**63)])
OP_TYPES = st.sampled_from(
    ["Conv", "ConvTranspose", "Gemm", "MatMul", "MaxPool", "AveragePool", "Reshape", "Transpose",
     "Concat", "Slice", "Squeeze", "Clip", "Unsqueeze", "Flatten", "Pad", "Resize", "Expand",
     "Tile", "Gather", "Split", "Quant", "BipolarQuant", "Trunc", "QuantizeLinear",
     "DequantizeLinear", "BatchNormalization", "Softmax", "ReduceMean", "PRelu", "Range",
     "ConstantOfShape"]
)  # fmt: skip


@st.composite
def broken_models(draw):
    """Valid protobuf with wrong content: ops, inputs, attributes, values, sizes, types."""
    model = onnx.ModelProto.FromString(NETWORK)
    graph = model.graph
    names = [w.name for w in graph.initializer] + [n.output[0] for n in graph.node] + ["x", ""]
    for _ in range(draw(st.integers(1, 3))):
        node, weight = draw(st.sampled_from(graph.node)), draw(st.sampled_from(graph.initializer))
        kind = draw(st.integers(0, 7))
        if kind == 0:
            node.op_type = draw(OP_TYPES)
        elif kind == 1:
            at = draw(st.integers(0, len(node.input) - 1)) if node.input else 0
            node.input[at : at + 1] = [draw(st.sampled_from(names))]
        elif kind == 2 and node.attribute:
            attribute = draw(st.sampled_from(node.attribute))
            attribute.i, attribute.ints[:] = draw(INTEGERS), draw(st.lists(INTEGERS, max_size=5))
        elif kind == 3 and weight.dims:
            weight.dims[draw(st.integers(0, len(weight.dims) - 1))] = draw(INTEGERS)
        elif kind == 4:
            weight.data_type = draw(st.integers(1, 23))
        elif kind == 5:
            weight.raw_data = draw(st.binary(max_size=16))
        elif kind == 6:
            graph.input[0].type.tensor_type.shape.dim[draw(st.integers(0, 3))].dim_value = draw(
                INTEGERS
            )
        elif len(graph.node) > 1:
            graph.node.remove(node)
    return model


@settings(max_examples=200, deadline=None, derandomize=True)
@given(broken_models())
def test_two_hundred_wrong_models(model):
    try:
        assert be.from_onnx(model)["main"].ret_ty is not None
    except BitencError as error:
        assert str(error)
