"""The digits network on the accelerator: every held-out image, and some on the Verilog."""

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import tvm_bitenc as be
from tests.vta.cases import needs_verilator
from tvm_bitenc.nn import DigitsCNN, init_from

pytest.importorskip("sklearn", reason="pip install 'tvm-bitenc[report]'")
pytestmark = pytest.mark.slow
ON_VERILOG = 20
BITS = [(8, 8), (4, 2), (2, 2), (1, 1)]


@pytest.fixture(scope="module")
def digits():
    path = Path(__file__).parents[2] / "tutorials" / "digits.py"
    spec = importlib.util.spec_from_file_location("digits_tutorial", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def networks(digits):
    """Networks of falling bits, each trained from the one before; and the held-out images."""
    *train, x, y = digits.load_digits()
    threads, models = torch.get_num_threads(), {}
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        before = digits.train(DigitsCNN(None, None), train, epochs=3)
        for bits in BITS:
            model = DigitsCNN(*bits)
            init_from(model, before)
            before = models[bits] = digits.train(model, train, epochs=2)
    torch.set_num_threads(threads)
    return models, x, y


@pytest.mark.parametrize("bits", BITS, ids="W{0[0]}A{0[1]}".format)
def test_every_held_out_image(bits, networks, same):
    models, x, y = networks
    mod = be.from_torch(models[bits], (x,))
    accelerated = be.build(mod, target="vta")(x.numpy())
    assert same(accelerated, be.build(mod)(x.numpy()))
    with torch.no_grad():
        classes = models[bits](x).argmax(1)
    assert np.array_equal(accelerated.argmax(1), classes)
    assert (classes == y).float().mean() > 0.8


@needs_verilator
@pytest.mark.parametrize("bits", BITS, ids="W{0[0]}A{0[1]}".format)
def test_images_on_the_verilog(bits, networks, same):
    models, x, _ = networks
    mod = be.from_torch(models[bits], (x[:1],))
    cpu, lib = be.build(mod), be.build(mod, target="vta", simulator="verilog")
    first = x[:1].numpy()
    lib(first)  # Builds the simulator.
    start = time.process_time()
    lib(first)
    assert time.process_time() - start < 5
    for image in x[:ON_VERILOG].numpy():
        assert same(lib(image[None]), cpu(image[None]))
    report = lib.report()
    assert all(work.is_measured for work in report.works) and len(report.works) == 6
