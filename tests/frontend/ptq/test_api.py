"""`quantize` where something isn't installed."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
sys.modules[{missing!r}] = None
import numpy, tvm_bitenc
from tvm_bitenc.errors import BitencError
import tvm_bitenc.frontend.ptq
try:
    tvm_bitenc.quantize("model.onnx", [numpy.zeros((1, 2), "float32")])
except BitencError as error:
    print(error)
"""


@pytest.mark.sweep(1)
@pytest.mark.parametrize("missing", ["torch", "onnx", "onnxruntime"])
def test_what_is_missing_is_named(missing):
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(missing=missing)], capture_output=True, text=True
    )
    assert run.stdout.startswith(f"quantize: {missing} isn't installed. pip install"), run.stderr
