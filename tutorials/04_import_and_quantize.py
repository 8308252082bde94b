"""
A model you already have: Brevitas, QDQ, or plain float
=======================================================

Three ways to a library: a network trained with Brevitas and exported as QONNX; a float network
quantized by ONNX Runtime into a QDQ file; and a float torch module, quantized after training with
bits chosen by layer. None of them is rewritten by hand.

    apt-get install dataset-fashion-mnist
    pip install 'tvm-bitenc[tutorials]'
    python tutorials/04_import_and_quantize.py

Where there is no such package, set ``FASHION_MNIST`` to a folder with the data set's four files
(https://github.com/zalandoresearch/fashion-mnist).
"""

# %%
# A float network, and data
# -------------------------

import contextlib
import io
import logging
import tempfile
import warnings
from functools import partial
from pathlib import Path

import brevitas.nn as qnn
import digits
import numpy as np
import torch
from brevitas.export import export_qonnx
from digits import OUT
from matplotlib import pyplot
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from rich.console import Console
from rich.table import Table
from torch import nn

import tvm_bitenc as be
from tvm_bitenc.frontend.ptq import report_of
from tvm_bitenc.nn import DigitsCNN, FashionNet
from tvm_bitenc.nn.datasets import load_fashion
from tvm_bitenc.nn.training import flipped, train

TRAINED, TESTED = 3000, 1000  # Pictures of clothing, for the last part.
torch.set_num_threads(1)
console = Console(width=110)
clothes, data = load_fashion(), digits.load_digits()
x_train, _, images, labels = data
folder = Path(tempfile.mkdtemp(prefix="bitenc-tutorial-"))


@contextlib.contextmanager
def quietly():
    """Without the exporters' deprecation warnings and progress lines."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        yield
        logging.disable(logging.NOTSET)


torch.manual_seed(0)
float_model = digits.train(DigitsCNN(None, None), data, epochs=8)
console.print(f"float: {digits.accuracy(float_model, images, labels):.2%}")

# %%
# Brevitas, by way of QONNX
# -------------------------
# A network of 4-bit weights and activations. `export_qonnx` writes `Quant` nodes; `from_onnx` reads
# them, and the layers become branches.

brevitas_model = nn.Sequential(
    qnn.QuantIdentity(bit_width=8),
    qnn.QuantConv2d(1, 16, 3, padding=1, bias=False, weight_bit_width=8),
    nn.BatchNorm2d(16),
    qnn.QuantReLU(bit_width=4),
    qnn.QuantConv2d(16, 32, 3, padding=1, bias=False, weight_bit_width=4),
    nn.BatchNorm2d(32),
    qnn.QuantReLU(bit_width=4),
    nn.MaxPool2d(4),
    nn.Flatten(),
    qnn.QuantLinear(32 * 2 * 2, 10, bias=False, weight_bit_width=4),
)
digits.train(brevitas_model, data, epochs=6)
with quietly():
    export_qonnx(brevitas_model, images, str(folder / "brevitas.onnx"))
lib = be.build(be.from_onnx(folder / "brevitas.onnx"))
print(lib.report())
with torch.no_grad():
    same = float((lib(images).argmax(1) == brevitas_model(images).numpy().argmax(1)).mean())
brevitas_accuracy = digits.accuracy(lib, images, labels)
console.print(f"Brevitas W4A4: {brevitas_accuracy:.2%} compiled, {same:.2%} the same digit")
assert same > 0.99

# %%
# QDQ, by way of ONNX Runtime's quantizer
# ---------------------------------------
# It calibrates on some images and writes 8-bit QuantizeLinear and DequantizeLinear pairs.


class Calibration(CalibrationDataReader):
    """Batches of the training images."""

    def __init__(self):
        self.batches = iter(x_train[:450].split(450))

    def get_next(self):
        """The next batch by input name, None behind the last."""
        batch = next(self.batches, None)
        return None if batch is None else {"x": batch.numpy()}


with quietly():
    options = dict(opset_version=17, input_names=["x"], dynamo=False)
    torch.onnx.export(float_model, (images,), str(folder / "float.onnx"), **options)
    quantize_static(
        folder / "float.onnx",
        folder / "qdq.onnx",
        Calibration(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )
lib = be.build(be.from_onnx(folder / "qdq.onnx"))
qdq_accuracy = digits.accuracy(lib, images, labels)
console.print(f"QDQ W8A8: {qdq_accuracy:.2%} compiled")
path = lib.export_library(folder / "digits.so")
assert np.array_equal(be.load(path)(images.numpy()), lib(images))
console.print(f"written and loaded again: {path.name}, {path.stat().st_size:,} bytes")

# %%
# Post-training quantization, bits chosen by layer
# ------------------------------------------------
# `quantize` needs typical inputs and no training. With ``bits="auto"`` and a budget of weight bytes
# it gives more bits to the layers whose error the output feels, and fewer to others. Fashion-MNIST
# shows what that is worth: pictures of clothing, 28 by 28 pixels, and a network with shortcuts. All
# layers have equal bits first; then the same bytes are shared out again.

x_train, y_train, images, labels = (
    part[:count] for part, count in zip(clothes, (TRAINED, TRAINED, TESTED, TESTED))
)
torch.manual_seed(0)
float_model = train(FashionNet(), x_train, y_train, epochs=5, batch_size=32, augment=flipped)
float_accuracy = digits.accuracy(float_model, images, labels)
quantize = partial(
    be.quantize,
    float_model,
    list(x_train[:256].split(64)),
    act_bits=4,
    first_last_bits=None,
    progress=False,
)


def compiled_accuracy(small):
    """Of a quantized model, compiled."""
    return digits.accuracy(be.build(be.from_torch(small, (images,))), images, labels)


table = Table("weight bytes", "equal bits", "accuracy", "bits by layer", "accuracy, compiled")
points = []
for weight_bits in (2, 3, 4):
    equal = quantize(weight_bits)
    size = report_of(equal).weight_bytes
    chosen = quantize(bits="auto", weight_bytes=size)
    bits = " ".join(f"W{row.weight_bits}A{row.act_bits}" for row in report_of(chosen).layers)
    found = [100 * compiled_accuracy(small) for small in (equal, chosen)]
    points.append((size, *found))
    table.add_row(f"{size:,}", f"W{weight_bits}A4", f"{found[0]:.2f}%", bits, f"{found[1]:.2f}%")
console.print(table)

figure, axis = pyplot.subplots(figsize=(6, 3.4))
sizes, *curves = zip(*points)
for curve, label in zip(curves, ("equal bits", "bits chosen by layer")):
    axis.plot(sizes, curve, "o-", label=label)
axis.axhline(100 * float_accuracy, color="gray", ls="--", label="float")
axis.set(xlabel="bytes of weights", ylabel="accuracy, %", title="quantized after training, A4")
axis.legend()
figure.tight_layout()
OUT.mkdir(exist_ok=True)
figure.savefig(OUT / "automatic_bits.png", dpi=110)
console.print(f"The picture: {OUT / 'automatic_bits.png'}")
