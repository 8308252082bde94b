"""ONNX files in, Relax modules out: small networks against torch, pretrained ones from PyPI."""

import io

import numpy as np
import pytest
import torch

import tvm_bitenc as be
from tvm_bitenc.errors import BitencError, UnsupportedError
from tvm_bitenc.frontend.ptq import report_of
from tvm_bitenc.transform.pipeline import no_lowering

onnx = pytest.importorskip("onnx", reason="pip install onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from tvm_bitenc.frontend.ptq.onnx_model import OnnxModel  # noqa: E402


def quantize(model, batches, *bits, **options):
    return be.quantize(model, batches, *bits, **{"progress": False, **options})


def model_of(nodes, weights, inputs, outputs, opset=13):
    """A checked model; `weights` are arrays by name, inputs and outputs shapes by name."""
    values = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in d.items()]
        for d in (inputs, outputs)
    ]
    stored = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "test", *values, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def random(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def convolution(**attributes):
    """conv of 3 -> 4 channels, 3x3, with bias."""
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], "conv", **attributes)
    weights = dict(w=random(4, 3, 3, 3), b=random(4))
    return model_of([node], weights, dict(x=["n", 3, 9, 8]), dict(y=["n", 4, "h", "v"]))


def output_of(model, *inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, dict(zip([i.name for i in session.get_inputs()], inputs)))[0]


@pytest.mark.sweep(1)
@pytest.mark.parametrize(
    "attributes",
    [
        dict(),
        dict(pads=[0, 2, 1, 0], strides=[2, 1], dilations=[1, 2]),
        dict(auto_pad="SAME_UPPER", strides=[2, 2]),
        dict(auto_pad="SAME_LOWER", strides=[2, 2]),
        dict(auto_pad="VALID"),
    ],
    ids=str,
)
def test_windows_are_those_of_onnx_runtime(attributes, same):
    model, x = convolution(**attributes), random(2, 3, 9, 8)
    mod = quantize(model, [x])
    built = be.build(mod)(x)
    assert same(built, be.build(mod, pipeline=no_lowering)(x))
    expected = output_of(model, x)
    assert np.square(built - expected).mean() < 1e-3 * np.square(expected).mean()
    # Bias correction and the errors use torch's convolution: it must be the same one.
    row = report_of(mod).layers[0]
    assert row.error == pytest.approx(row.total_error, rel=1e-3)


@pytest.mark.parametrize(
    "attributes, bias",
    [
        (dict(), 5),
        (dict(transB=1), 5),
        (dict(alpha=0.5, beta=2.0), 5),
        (dict(beta=3.0), 1),
        (dict(), None),
    ],
    ids=str,
)
def test_dense_layers_of_every_spelling(attributes, bias, same):
    weights = dict(w=random(5, 7) if attributes.get("transB") else random(7, 5))
    weights.update({} if bias is None else dict(b=random(bias)))
    node = helper.make_node("Gemm", ["x", *weights], ["y"], "dense", **attributes)
    model, x = model_of([node], weights, dict(x=[4, 7]), dict(y=[4, 5])), random(4, 7)
    mod = quantize(model, [x])
    built, expected = be.build(mod)(x), output_of(model, x)
    assert same(built, be.build(mod, pipeline=no_lowering)(x))
    assert np.square(built - expected).mean() < 1e-3 * np.square(expected).mean()


def test_torch_and_onnx_give_the_same_report(mixed):
    """The same network by both front ends: same layers, grids and errors."""
    pytest.importorskip("onnxscript", reason="pip install onnxscript")
    model, batches = mixed
    buffer = io.BytesIO()
    torch.onnx.export(model, (batches[0],), buffer, dynamo=False, opset_version=17)
    by_torch = report_of(quantize(model, batches, 3, 4)).layers
    file = onnx.load_from_string(buffer.getvalue())
    by_onnx = report_of(quantize(file, [x.numpy() for x in batches], 3, 4)).layers
    assert len(by_onnx) == len(by_torch) == 5
    for a, b in zip(by_torch, by_onnx):
        assert (a.kind, a.weight_bits, a.act_bits) == (b.kind, b.weight_bits, b.act_bits)
        assert b.error == pytest.approx(a.error, rel=0.01)


def test_layers_of_other_shapes(same):
    nodes = [
        helper.make_node("Conv", ["x", "row"], ["a"], "row", pads=[1, 2], strides=[2]),
        helper.make_node("Reshape", ["a", "shape"], ["b"], "image"),
        helper.make_node(
            "ConvTranspose",
            ["b", "up", "bias"],
            ["c"],
            "up",
            strides=[2, 1],
            pads=[0, 1, 1, 1],
            output_padding=[1, 0],
        ),
        helper.make_node("MatMul", ["c", "rows"], ["y"], "rows"),
    ]
    weights = dict(
        row=random(8, 3, 4),
        shape=np.array([-1, 2, 4, 6]),
        up=random(2, 5, 3, 2),
        bias=random(5),
        rows=random(5, 7),
    )
    model = model_of(nodes, weights, dict(x=["n", 3, 11]), dict(y=["n", 5, 9, 7]))
    x = random(4, 3, 11)
    mod = quantize(model, [x])
    rows = report_of(mod).layers
    assert [row.kind for row in rows] == ["conv1d", "conv2d_transpose", "dense"]
    assert all(row.total_error < 1e-3 for row in rows)
    built = be.build(mod)
    assert same(built(x), be.build(mod, pipeline=no_lowering)(x))
    assert not built.report().float_layers
    expected = output_of(model, x)
    assert np.square(built(x) - expected).mean() < 1e-3 * np.square(expected).mean()


def test_what_stays_float_is_listed_with_its_reason():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], "conv"),
        helper.make_node("Conv", ["y", "r"], ["v"], "computed"),
        helper.make_node("ConvTranspose", ["v", "t"], ["u"], "up", group=2),
        helper.make_node("MatMul", ["u", "u"], ["p"], "product"),
        helper.make_node("MatMul", ["p", "m"], ["q"], "rows"),
    ]
    weights = dict(w=random(4, 3, 1, 1), t=random(4, 1, 1, 1), m=random(1, 5, 5))
    inputs = dict(x=[1, 3, 5, 5], r=[4, 4, 1, 1])
    model = model_of(nodes, weights, inputs, dict(q=[1, 2, 5, 5]))
    report = report_of(quantize(model, [(random(1, 3, 5, 5), random(4, 4, 1, 1))]))
    reasons = dict(report.float_layers)
    assert [row.name for row in report.layers] == ["conv"]
    assert "two activations" in reasons["computed"] and "two activations" in reasons["product"]
    assert "groups" in reasons["up"] and "3 axes" in reasons["rows"]


def test_batches_by_name_and_shapes_of_the_result():
    model, x = convolution(), random(2, 3, 9, 8)
    mod = quantize(model, [{"x": torch.from_numpy(x)}, {"x": x}], shapes={"x": (5, 3, 9, 8)})
    assert be.build(mod)(random(5, 3, 9, 8)).shape == (5, 4, 7, 6)


def test_the_model_given_stays_as_it_was():
    model = convolution()
    before = model.SerializeToString()
    quantize(model, [random(2, 3, 9, 8)])
    assert model.SerializeToString() == before


def test_wrong_batches_and_models_are_named(tmp_path):
    model, x = convolution(), random(2, 3, 9, 8)
    for batch in ((x, x), {"z": x}, {"x": x, "z": x}):
        with pytest.raises(BitencError, match=r"batch 0.*doesn't fit the inputs x.*without labels"):
            quantize(model, [batch])
    with pytest.raises(BitencError, match=r"batch 0.*doesn't run"):
        quantize(model, [x[:, :2]])
    with pytest.raises(BitencError, match=r"batch 1.*doesn't run"):
        quantize(model, [x, x[:, :2]])
    with pytest.raises(BitencError, match=r"doesn't exist"):
        quantize(tmp_path / "model.onnx", [x])
    (tmp_path / "model.onnx").write_bytes(b"\x08\x01rubbish")
    with pytest.raises(BitencError, match=r"model\.onnx'.*(can't be read|isn't a valid)"):
        quantize(tmp_path / "model.onnx", [x])
    old = model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        dict(w=random(4, 3, 3, 3)),
        dict(x=[1, 3, 9, 8]),
        dict(y=[1, 4, 7, 6]),
        opset=9,
    )
    with pytest.raises(UnsupportedError, match=r"operator set 9.*version_converter"):
        quantize(old, [x])


def test_the_key_tells_models_and_data_apart():
    x = random(2, 3, 9, 8)
    models = [(convolution(), [x]), (convolution(strides=[2, 2]), [x]), (convolution(), [x, x])]
    keys = [OnnxModel(*arguments, None).key() for arguments in [*models, models[0]]]
    assert len(set(keys)) == 3 and keys[0] == keys[3]


@pytest.fixture(scope="module")
def classifier(pretrained):
    """Which way up a line of text is; float network with squeeze-and-excite and hard-swish."""
    return pretrained("ch_ppocr_mobile_v2.0_cls_infer.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("bits, worst", [((8, 8), 0.02), ((4, 4), 0.7)])
def test_a_pretrained_classifier(bits, worst, classifier, text_images, same):
    batches = [text_images(range(8 * i, 8 * i + 8), 48, 192) for i in range(2)]
    mod = quantize(classifier, batches, *bits)
    report = report_of(mod)
    assert len(report.layers) == 36 and len(report.float_layers) == 18
    assert all("squeeze" in reason for _, reason in report.float_layers)
    assert {row.kind for row in report.layers} == {"conv2d", "depthwise", "dense"}
    assert all(0 < row.error < 0.5 for row in report.layers) and report.output_error < worst
    x = text_images(range(100, 108), 48, 192)
    built = be.build(mod)
    assert same(built(x), be.build(mod, pipeline=no_lowering)(x))
    assert len(built.report().layers) == 36
    expected = output_of(onnx.load(classifier), x)
    assert np.square(built(x) - expected).mean() < 2 * worst * np.square(expected).mean()


@pytest.mark.slow
def test_a_pretrained_text_detector(pretrained, text_images, same):
    path = pretrained("ch_PP-OCRv4_det_infer.onnx")
    batches = [text_images([i], 160, 160) for i in range(2)]
    mod = quantize(path, batches, 8, 8)
    report = report_of(mod)
    kinds = {row.kind for row in report.layers}
    assert len(report.layers) == 44 and report.output_error < 0.02
    assert kinds == {"conv2d", "depthwise", "conv2d_transpose"}
    x = text_images([100], 160, 160)
    built = be.build(mod)
    assert same(built(x), be.build(mod, pipeline=no_lowering)(x))


@pytest.mark.slow
def test_automatic_bits_beat_equal_bits_of_the_same_size(classifier, text_images):
    """At the last layer: the softmax behind it hides errors of all sizes."""
    batches, options = [text_images(range(8), 48, 192)], dict(first_last_bits=None)
    uniform = quantize(classifier, batches, 4, 8, **options)
    size = report_of(uniform).weight_bytes
    chosen = quantize(classifier, batches, 8, 8, bits="auto", weight_bytes=size, **options)
    rows = report_of(chosen).layers
    assert report_of(chosen).weight_bytes <= size and len({row.weight_bits for row in rows}) > 3
    assert rows[-1].total_error < 0.8 * report_of(uniform).layers[-1].total_error
