"""A trained float network for the digits, small random ones, and text images."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tvm_bitenc.nn import DigitsCNN


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small layers: a second thread would only wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def digits():
    """The trained float twin; calibration batches, held-out images; accuracy of a function."""
    pytest.importorskip("sklearn", reason="pip install scikit-learn")
    path = Path(__file__).parents[3] / "tutorials" / "digits.py"
    spec = importlib.util.spec_from_file_location("digits", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    data = module.load_digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = module.train(DigitsCNN(None, None), data, epochs=15)
    return SimpleNamespace(
        model=model,
        batches=list(data[0][:128].split(64)),
        images=data[2],
        accuracy=lambda predict: module.accuracy(predict, *data[2:]),
    )


class Mixed(nn.Module):
    """Every shape of layer: stride, "same", groups, depthwise, residual, concat, gate, dense."""

    def __init__(self, has_gate=True):
        super().__init__()
        self.has_gate = has_gate
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding="same", groups=8)
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.grouped = nn.Conv2d(8, 8, (3, 2), dilation=2, padding=(2, 1), groups=2)
        self.squeeze, self.excite = nn.Linear(8, 4), nn.Linear(4, 8)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = torch.relu(self.stem_norm(self.stem(x)))
        y = nn.functional.hardswish(self.pointwise(self.depthwise(x)) + x)
        if self.has_gate:
            pooled = nn.functional.adaptive_avg_pool2d(y, 1).flatten(1)
            gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(pooled))))
            y = y * gate[:, :, None, None]
        both = [nn.functional.max_pool2d(part, 4) for part in (y, self.grouped(y))]
        return self.head(torch.cat(both, 1).flatten(1))


def _mixed(**options):
    torch.manual_seed(0)
    model = Mixed(**options)
    nn.init.normal_(model.stem_norm.weight), nn.init.normal_(model.stem_norm.bias)
    model.stem_norm.running_mean.normal_(), model.stem_norm.running_var.uniform_(0.5, 2)
    return model.eval(), [torch.randn(4, 3, 12, 12) for _ in range(2)]


@pytest.fixture
def mixed():
    """A random network of every shape of layer in eval mode, and two batches for it."""
    return _mixed()


@pytest.fixture
def mixed_without_gate():
    """The same without squeeze-and-excite, whose average may be summed in any order."""
    return _mixed(has_gate=False)


@pytest.fixture(scope="session")
def text_images():
    """``text_images(seeds, height, width)``: drawn lines of text, every second one upside down.

    Float32 (N, 3, height, width) in [-1, 1], as the networks of rapidocr take them.
    """
    pillow = pytest.importorskip("PIL.Image", reason="pip install pillow")
    from PIL import ImageDraw, ImageFont

    letters = list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 ")

    def draw(seed, height, width):
        random = np.random.default_rng(seed)
        paper, ink = int(random.integers(140, 256)), int(random.integers(0, 100))
        image = pillow.new("RGB", (width, height), (paper,) * 3)
        font = ImageFont.load_default(size=int(random.integers(18, 34)))
        for top in range(0, height - 20, 60):
            line = "".join(random.choice(letters, 14))
            ImageDraw.Draw(image).text((5, top + 5), line, fill=(ink,) * 3, font=font)
        image = image.rotate(180) if seed % 2 else image
        return (np.asarray(image, np.float32) / 127.5 - 1).transpose(2, 0, 1)

    def images(seeds, height, width):
        return np.stack([draw(seed, height, width) for seed in seeds])

    return images
