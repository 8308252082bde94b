"""A float network in ONNX Runtime, OpenVINO and torch, in float32 and in 8-bit integers.

Each peer runs from a file: what torch exports, what ONNX Runtime's static quantizer makes of that,
or torch's own.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import tvm_bitenc

from .peers import Run, onnxruntime_run, openvino_run, random_array
from .results import first_line
from .workloads import library_run

OPSET = 17  # The first that has layer-norms.
CALIBRATION_INPUTS = 4
FLOAT, PREPARED, TORCH = "float.onnx", "prepared.onnx", "float.pt"
QDQ, QOPERATOR = "qdq.onnx", "qoperator.onnx"
# Peers by name: what runs them, a key of `RUNTIMES`, and the file that it runs.
PEERS = {
    "ort qdq": ("onnxruntime", QDQ),
    "ort qop": ("onnxruntime", QOPERATOR),
    "ov int8": ("openvino", QDQ),
    "ort fp32": ("onnxruntime", FLOAT),
    "ov fp32": ("openvino", FLOAT),
    "torch fp32": ("torch", TORCH),
}
INT8_PEERS = ("ort qdq", "ort qop", "ov int8")
FORMATS = {QDQ: QuantFormat.QDQ, QOPERATOR: QuantFormat.QOperator}

Shape = Sequence[int]


def write_files(twin: torch.nn.Module, shape: Shape, folder: Path) -> dict[str, str]:
    """Write the files of all peers; return, by file, why one can't be written."""
    failures = {}
    torch.save(twin, folder / TORCH)
    export(twin, shape, folder / FLOAT)
    quant_pre_process(folder / FLOAT, folder / PREPARED)
    for name in FORMATS:
        try:
            quantize(folder / PREPARED, folder / name, shape)
        except Exception as error:  # Whatever the quantizer raises is the reason that's printed.
            failures[name] = f"ONNX Runtime's quantizer: {first_line(error)}"
    return failures


def export(model: torch.nn.Module, shape: Shape, path: Path) -> None:
    """Write a float module in eval mode as an ONNX file; torch folds batch-norms."""
    x = torch.from_numpy(random_array(shape, np.float32))
    names = {"input_names": ["x"], "output_names": ["y"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The newer exporter takes one more package.
        torch.onnx.export(model, (x,), path, **names, opset_version=OPSET, dynamo=False)


def quantize(float_path: Path, path: Path, shape: Shape) -> None:
    """Write an int8 file: u8 activations, s8 weights per channel, calibrated on random inputs.

    The format goes by the name of the file, see `FORMATS`.
    """
    logging.getLogger().setLevel(logging.ERROR)  # The quantizer advises what is done already.
    quantize_static(
        float_path,
        path,
        _RandomInputs(shape),
        quant_format=FORMATS[path.name],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


class _RandomInputs(CalibrationDataReader):
    def __init__(self, shape: Shape):
        arrays = (random_array(shape, np.float32, seed) for seed in range(CALIBRATION_INPUTS))
        self.inputs = ({"x": array} for array in arrays)

    def get_next(self) -> dict | None:
        """Return the next input, None after the last."""
        return next(self.inputs, None)


def _run_library(path: Path, shape: Shape, _threads: int) -> Run:
    return library_run(tvm_bitenc.load(path), random_array(shape, np.float32))


def _run_onnxruntime(path: Path, _shape: Shape, threads: int) -> Run:
    return onnxruntime_run(path, threads=threads)


def _run_openvino(path: Path, _shape: Shape, threads: int) -> Run:
    return openvino_run(path, threads=threads)


def _run_torch(path: Path, shape: Shape, threads: int) -> Run:
    """Load and run eagerly; images channels last."""
    torch.set_num_threads(threads)
    model = torch.load(path, weights_only=False)
    x = torch.from_numpy(random_array(shape, np.float32))
    if x.ndim == 4:
        x, model = (t.to(memory_format=torch.channels_last) for t in (x, model))
    return torch.inference_mode()(lambda: model(x))


# Each returns one run of a saved network, for an input of a shape, by a number of threads.
RUNTIMES: dict[str, Callable[[Path, Shape, int], Run]] = {
    "library": _run_library,
    "onnxruntime": _run_onnxruntime,
    "openvino": _run_openvino,
    "torch": _run_torch,
}
