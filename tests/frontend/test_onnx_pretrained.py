"""Pretrained networks that a package on PyPI ships, of dynamic shapes: ONNX Runtime's numbers."""

import numpy as np
import pytest

import tvm_bitenc as be
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.transform import no_lowering

ort = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
CLASSIFIER = "ch_ppocr_mobile_v2.0_cls_infer.onnx"
DETECTOR = "ch_PP-OCRv4_det_infer.onnx"
RECOGNIZER = "ch_PP-OCRv4_rec_infer.onnx"


def test_their_shapes_are_dynamic(pretrained):
    for path in map(pretrained, (CLASSIFIER, DETECTOR, RECOGNIZER)):
        with pytest.raises(UnsupportedError, match="input 'x'.*dynamic shape.*shapes="):
            be.from_onnx(path)


@pytest.mark.slow
@pytest.mark.parametrize("name, shape, tolerance", [
    (CLASSIFIER, (1, 3, 48, 192), 1e-5),
    (DETECTOR, (1, 3, 160, 160), 1e-5),
    # A softmax behind a hundred layers: the order of their float32 sums is seen in its outputs.
    (RECOGNIZER, (1, 3, 48, 32), 1e-4),
], ids=["classifier", "detector", "recognizer"])  # fmt: skip
def test_they_agree_with_onnx_runtime(name, shape, tolerance, pretrained):
    path = pretrained(name)
    lib = be.build(be.from_onnx(path, {"x": shape}), pipeline=no_lowering)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    (expected,) = ort.InferenceSession(path).run(None, {"x": x})
    assert np.abs(lib(x) - expected).max() <= tolerance
