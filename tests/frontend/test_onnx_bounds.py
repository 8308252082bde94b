"""ONNX files from anyone: nothing outside of their folder is read, nothing grows without end."""

import os

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import tvm_bitenc as be
from tvm_bitenc.errors import BitencError
from tvm_bitenc.frontend.onnx.bounds import MOST_DEPTH
from tvm_bitenc.frontend.onnx.model import load

SHAPE = (1, 4)


def model_of(nodes, weights=(), functions=(), opsets=("",)) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, SHAPE)],
        list(weights),
    )  # fmt: skip
    imports = [helper.make_opsetid(domain, 17 if not domain else 1) for domain in opsets]
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=9)


def adding(weight: TensorProto) -> onnx.ModelProto:
    return model_of([helper.make_node("Add", ["x", weight.name], ["y"])], [weight])


@pytest.fixture
def external(tmp_path):
    """``external(location, offset=, length=)``: path of a model whose weight is elsewhere."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (tmp_path / "secret.bin").write_bytes(np.ones(4, np.float32).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "linked").symlink_to(tmp_path)

    def make(location: str, **numbers):
        weight = numpy_helper.from_array(np.zeros(4, np.float32), "w")
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **numbers}.items():
            weight.external_data.add(key=key, value=str(value))
        path = folder / "net.onnx"
        path.write_bytes(adding(weight).SerializeToString())
        return path

    return make


def test_weights_beside_the_model_are_read(external):
    lib = be.build(be.from_onnx(external("weights.bin", offset=0, length=16)))
    x = np.ones(SHAPE, np.float32)
    assert np.array_equal(lib(x), x + np.arange(4, dtype=np.float32))


@pytest.mark.parametrize(
    "location, numbers, message",
    [
        ("../secret.bin", {}, "outside of the model's folder"),
        ("a/../../secret.bin", {}, "outside of the model's folder"),
        ("/etc/hostname", {}, "outside of the model's folder"),
        ("link.bin", {}, "which is a link"),
        ("linked/secret.bin", {}, "which is a link"),
        ("missing.bin", {}, "which isn't a file"),
        (".", {}, "isn't a file"),
        ("", {}, "outside of the model's folder"),
        ("weights.bin", {"offset": 8, "length": 16}, "wants 16 bytes at 8 of 16"),
        ("weights.bin", {"offset": -4}, "isn't described|wants"),
        ("weights.bin", {"length": -4}, "isn't described|wants"),
        ("weights.bin", {"offset": 2**60}, "wants|isn't described"),
        ("weights.bin", {"offset": "x"}, "isn't described"),
        ("weights.bin", {"length": 8}, "has 2 numbers, and 4 by its shape"),
    ],
)
def test_other_files_are_not_read(location, numbers, message, external):
    with pytest.raises(BitencError, match=message) as caught:
        be.from_onnx(external(location, **numbers))
    assert "tensor 'w'" in str(caught.value)


def test_a_proto_has_no_folder(external):
    proto = onnx.load(external("weights.bin"), load_external_data=False)
    with pytest.raises(BitencError, match="its folder isn't known"):
        be.from_onnx(proto)


@pytest.mark.parametrize("where", ["attribute", "graph", "function"])
def test_tensors_inside_of_nodes_count_as_well(where, tmp_path):
    evil = TensorProto(
        name="evil", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL
    )
    evil.external_data.add(key="location", value="/etc/hostname")
    constant = helper.make_node("Constant", [], ["w"])
    constant.attribute.append(helper.make_attribute("value", evil))
    constant.attribute[0].t.CopyFrom(evil)
    add = helper.make_node("Add", ["x", "w"], ["y"])
    if where == "attribute":
        model = model_of([constant, add])
    elif where == "graph":
        inner = helper.make_graph([constant, add], "inner", [], [])
        model = model_of([helper.make_node("If", ["x"], ["y"], then_branch=inner)])
    else:
        function = helper.make_function(
            "own", "f", ["x"], ["y"], [constant, add], [helper.make_opsetid("", 17)]
        )
        call = helper.make_node("f", ["x"], ["y"], domain="own")
        model = model_of([call], functions=[function], opsets=("", "own"))
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BitencError, match="'evil'.*outside of the model's folder"):
        be.from_onnx(path)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(dims=[2**40]), "has the shape"),
        (dict(dims=[-4]), "has the shape"),
        (dict(dims=[2**20, 2**20]), "has the shape"),
        (dict(dims=[8]), "has 4 numbers, and 8"),
        (dict(raw_data=b"\0" * 3), "numbers, and 4"),
        (dict(raw_data=b"", float_data=[1.0, 2.0]), "numbers, and 4"),
    ],
)
def test_tensors_that_claim_more_than_they_have(change, message):
    weight = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    for name, value in change.items():
        weight.ClearField(name)
        if isinstance(value, list):
            getattr(weight, name).extend(value)
        else:
            setattr(weight, name, value)
    with pytest.raises(BitencError, match=message):
        be.from_onnx(adding(weight))


def functions(calls: dict[str, list[str]]) -> onnx.ModelProto:
    """A model of functions, each of which calls others one after another."""
    made = []
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for name, called in calls.items():
        values = ["x", *(f"v{i}" for i in range(len(called) - 1)), "y"]
        nodes = [
            helper.make_node(op, [a], [b], domain="own" if op in calls else "")
            for op, a, b in zip(called, values, values[1:])
        ]
        made.append(helper.make_function("own", name, ["x"], ["y"], nodes, imports))
    call = helper.make_node(next(iter(calls)), ["x"], ["y"], domain="own")
    return model_of([call], functions=made, opsets=("", "own"))


@pytest.mark.parametrize(
    "calls, message",
    [
        ({"f": ["f"]}, "'f': calls itself"),
        ({"f": ["g"], "g": ["Relu", "f"]}, "'f': calls itself"),
        ({f"f{i}": [f"f{i + 1}"] * 2 for i in range(25)} | {"f25": ["Relu"]}, "nodes once"),
        ({f"f{i}": [f"f{i + 1}"] for i in range(2000)} | {"f2000": ["Relu"]}, "calls deep"),
    ],
    ids=["itself", "each other", "doubling", "deep"],
)
def test_functions_without_end(calls, message):
    with pytest.raises(BitencError, match=message):
        be.from_onnx(functions(calls))


def test_graphs_deep_in_each_other(tmp_path):
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    for _ in range(MOST_DEPTH + 1):
        graph = helper.make_graph([helper.make_node("If", ["x"], ["y"], a=graph)], "g", [], [])
    with pytest.raises(BitencError, match="deep in each other"):
        be.from_onnx(model_of(graph.node))


GOOD = adding(numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")).SerializeToString()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    cut=st.integers(0, len(GOOD)),
    changes=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=4),
)
def test_damaged_files_load_or_are_refused(cut, changes, tmp_path):
    path, content = tmp_path / "net.onnx", bytearray(GOOD)
    for place, byte in changes:
        content[place] = byte
    path.write_bytes(content[: cut if cut % 3 else len(content)])
    try:
        load(path)
    except BitencError as error:
        assert "\n" not in str(error)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "net.onnx"
    for content in (b"", b"\xff" * 100, b"\x3a" * 5000, os.urandom(1000)):
        path.write_bytes(content)
        with pytest.raises(BitencError):
            be.from_onnx(path)
