"""What a converter ignores or gets wrong is refused by name; valid models of all spellings pass."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tvm import relax

import tvm_bitenc as be
from tvm_bitenc.errors import BitencError, UnsupportedError
from tvm_bitenc.frontend.onnx import walk
from tvm_bitenc.frontend.onnx.interpolation import POSITIONS, Axis, Sampling, taps
from tvm_bitenc.transform import no_lowering

rng = np.random.default_rng(0)


def model_of(nodes, inputs, outputs, constants=(), opset=21, functions=(), domains=()):
    """Build a model; inputs are arrays by name, outputs are names."""
    values = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in inputs.items()
    ]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    weights = [numpy_helper.from_array(np.asarray(v), k) for k, v in dict(constants).items()]
    graph = helper.make_graph(nodes, "test", values, results, weights)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)
    types = {v.name: v.type for v in onnx.shape_inference.infer_shapes(model).graph.output}
    for value in model.graph.output:
        value.type.CopyFrom(types[value.name])
    return model


def check(model, inputs, atol=1e-5):
    """Compare with onnx's reference evaluator, shapes and types too."""
    found = be.build(be.from_onnx(model), pipeline=no_lowering)(*inputs.values())
    found = found if isinstance(found, tuple) else (found,)
    for a, b in zip(found, ReferenceEvaluator(model).run(None, inputs), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, atol, atol)


X = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, outputs[0], **attributes)


def test_attributes_that_a_converter_ignores(monkeypatch):
    def ignores(importer, relu):
        importer.define(relu, importer.expression(relu.input[0]))

    monkeypatch.setitem(walk.CONVERTERS, ("", "LeakyRelu"), ignores)
    model = model_of([node("LeakyRelu", ["x"], ["y"], alpha=0.5)], {"x": X}, ["y"])
    with pytest.raises(UnsupportedError, match="LeakyRelu node 'y': has attributes.*alpha"):
        be.from_onnx(model)
    be.from_onnx(model_of([node("LeakyRelu", ["x"], ["y"], alpha=0.01)], {"x": X}, ["y"]))


def test_inputs_that_a_converter_ignores(monkeypatch):
    def ignores(importer, add):
        importer.define(add, importer.expression(add.input[0]))

    monkeypatch.setitem(walk.CONVERTERS, ("", "Add"), ignores)
    model = model_of([node("Add", ["x", "x2"], ["y"])], {"x": X, "x2": X}, ["y"])
    with pytest.raises(UnsupportedError, match="Add node 'y': has inputs.*x2"):
        be.from_onnx(model)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: relax.op.astype(x, "float64"),
        lambda x: relax.op.reshape(x, (2, 3, 20)),
        lambda x: relax.op.reshape(x, (3, 2, 4, 5)),
    ],
    ids=["dtype", "rank", "size"],
)
def test_outputs_that_are_not_what_onnx_says(monkeypatch, wrong):
    def converts(importer, relu):
        importer.define(relu, wrong(importer.expression(relu.input[0])))

    monkeypatch.setitem(walk.CONVERTERS, ("", "Relu"), converts)
    model = model_of([node("Relu", ["x"], ["y"])], {"x": X}, ["y"])
    with pytest.raises(UnsupportedError, match=r"Relu node 'y'.*ONNX says float32 \(2, 3, 4, 5\)"):
        be.from_onnx(model)


def test_outputs_that_a_converter_forgets(monkeypatch):
    def converts(importer, split):
        importer.define(split, importer.expression(split.input[0]))

    monkeypatch.setitem(walk.CONVERTERS, ("", "Dropout"), converts)
    model = model_of([node("Dropout", ["x"], ["y", "mask"])], {"x": X}, ["y", "mask"])
    with pytest.raises(UnsupportedError, match="Dropout node 'y': its output 1 isn't computed"):
        be.from_onnx(model)


def test_functions_branches_and_sequences():
    domains = ["local"]
    inner = node("Mul", ["a", "a"], ["b"])
    opsets = [helper.make_opsetid("", 21)]
    square = helper.make_function("local", "Square", ["a"], ["b"], [inner], opsets)
    then = helper.make_graph(
        [node("Neg", ["s"], ["t"])], "then", [], [helper.make_tensor_value_info("t", 1, X.shape)]
    )
    other = helper.make_graph(
        [node("Abs", ["s"], ["e"])], "else", [], [helper.make_tensor_value_info("e", 1, X.shape)]
    )
    nodes = [
        helper.make_node("Square", ["x"], ["s"], domain="local"),
        helper.make_node("If", ["yes"], ["n"], then_branch=then, else_branch=other),
        node("SequenceConstruct", ["x", "n"], ["pair"]),
        node("ConcatFromSequence", ["pair"], ["c"], axis=1),
        node("Split", ["c"], ["p", "q"], axis=1, num_outputs=2),
        helper.make_node("Add", ["p", "q"], ["y"], "main"),
    ]
    model = model_of(nodes, {"x": X}, ["y"], {"yes": np.array(True)}, 21, [square], domains)
    check(model, {"x": X})


def test_functions_that_never_end():
    domains, opsets = ["local"], [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    again = helper.make_node("Again", ["a"], ["b"], domain="local")
    function = helper.make_function("local", "Again", ["a"], ["b"], [again], opsets)
    call = helper.make_node("Again", ["x"], ["y"], domain="local")
    values = [helper.make_tensor_value_info(n, 1, [2]) for n in "xy"]
    graph = helper.make_graph([call], "test", values[:1], values[1:])
    imports = [helper.make_opsetid("", 21), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=10)
    with pytest.raises(BitencError, match="calls itself|valid"):
        be.from_onnx(model)


def test_further_outputs_and_wide_constants():
    nodes = [
        node("MaxPool", ["x"], ["m", "at"], kernel_shape=[2, 2], strides=[2, 2], pads=[0, 1, 0, 0]),
        node("LayerNormalization", ["x", "g"], ["n", "mean", "inverse"], axis=-1),
        node("Dropout", ["x"], ["d", "mask"]),
        node("Add", ["i", "large"], ["sum"]),
    ]
    constants = {"g": np.ones(5, np.float32), "large": np.array(2**40 + 1)}
    inputs = {"x": X, "i": np.arange(3)}
    outputs = ["m", "at", "n", "mean", "inverse", "d", "mask", "sum"]
    check(model_of(nodes, inputs, outputs, constants), inputs)


def test_indices_are_counted_from_the_end_and_never_reach_outside():
    table = rng.normal(size=(5, 3)).astype(np.float32)
    nodes = [node("Gather", ["t", "i"], ["rows"]), node("GatherND", ["t", "p"], ["points"])]
    inputs = {"t": table, "i": np.array([-1, -5, 4]), "p": np.array([[-1, 2], [4, -3]])}
    check(model_of(nodes, inputs, ["rows", "points"]), inputs)
    lib = be.build(be.from_onnx(model_of(nodes[:1], {k: inputs[k] for k in "ti"}, ["rows"])))
    np.testing.assert_array_equal(lib(table, np.array([99, -99, 2**40])), table[[4, 0, 4]])
    with pytest.raises(UnsupportedError, match="has an index outside of 5"):
        be.from_onnx(model_of(nodes[:1], {"t": table}, ["rows"], {"i": np.array([5])}))


@pytest.mark.parametrize("positions", sorted(POSITIONS))
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_positions_of_resize(mode, positions):
    """Of the function alone: what it reads of an axis, against the reference evaluator."""
    for size, scale in ((4, 0.6), (5, 1.7), (7, 2.0), (8, 0.5), (3, 1.0)):
        for outside in (0, 1) if mode == "cubic" else (0,):
            x = rng.normal(size=(1, size)).astype(np.float32)
            region = np.float32([0, 0.2, 1, 0.9])
            resize = helper.make_node(
                "Resize", ["x", "r", "s"], ["y"], mode=mode, exclude_outside=outside,
                coordinate_transformation_mode=positions,
            )  # fmt: skip
            constants = {"s": np.float32([1, scale]), "r": region}
            model = model_of([resize], {"x": x}, ["y"], constants, 19)
            (want,) = ReferenceEvaluator(model).run(None, {"x": x})
            axis = Axis(size, int(size * np.float32(scale)), float(np.float32(scale)), (0.2, 0.9))
            sampling = Sampling(mode, positions, exclude_outside=bool(outside))
            indices, weights = taps(axis, sampling)
            inside = want[0] != 0  # Where extrapolated, ONNX says 0.
            got = (x[0][indices] * weights).sum(1)
            np.testing.assert_allclose(got[inside], want[0][inside], 1e-4, 1e-5)
