import importlib.util
from pathlib import Path

import pytest
import torch

from tvm_bitenc.nn import DigitsCNN, QConv2d, init_from


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn", reason="pip install scikit-learn")
    path = Path(__file__).parents[2] / "tutorials" / "digits.py"
    spec = importlib.util.spec_from_file_location("digits", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_bits_of_each_layer():
    model = DigitsCNN(2, 3)
    layers = [model.conv1, model.conv2, model.conv3, model.classifier]
    assert [(m.weight_bits, m.act.bits) for m in layers] == [(8, 8), (2, 3), (2, 3), (8, 8)]
    pixels = torch.arange(17.0)
    assert (model.conv1.act(pixels) - pixels).abs().max() < 0.0314  # 16 / 255 / 2


def test_float_twin_has_the_same_names_and_starts_a_quantized_model():
    twin = DigitsCNN(None, None)
    assert not any(isinstance(m, QConv2d) for m in twin.modules())
    model = init_from(DigitsCNN(8, 8), twin)
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in twin.named_parameters()]


def test_export_is_bit_identical():
    model, x = DigitsCNN(2, 2).eval(), torch.randint(17, (3, 1, 8, 8)).float()
    program = torch.export.export(model, (x,))
    assert torch.equal(program.module()(x), model(x))


def test_none_for_one_of_the_bits_is_an_error():
    with pytest.raises(ValueError, match="both"):
        DigitsCNN(None, 2)


def test_split_is_stratified_and_fixed(digits):
    x_train, y_train, x_test, y_test = digits.load_digits()
    assert x_train.shape == (1347, 1, 8, 8) and x_test.shape == (450, 1, 8, 8)
    assert x_train.dtype == torch.float32 and (x_train.min(), x_train.max()) == (0, 16)
    counts = torch.bincount(y_train), torch.bincount(y_test)
    assert (counts[0] / 1347 - counts[1] / 450).abs().max() < 0.003
    assert torch.equal(digits.load_digits()[2], x_test)


def test_training_learns_and_repeats(digits):
    data = digits.load_digits()
    runs, names = [], []
    for _ in range(2):
        models = digits.train_route((2,), data, epochs=3, progress=names.append)
        runs.append([digits.accuracy(model, *data[2:]) for model in models.values()])
    assert list(models) == ["float", "W2A2"]
    assert names == 2 * (3 * ["float"] + 3 * ["W2A2"])
    assert runs[0] == runs[1]
    assert min(runs[0]) > 0.95
    assert not any(model.training for model in models.values())


@pytest.mark.slow
def test_the_whole_route_loses_little(digits):
    data = digits.load_digits()
    models = digits.train_route((4, 2, 1), data)
    reached = {name: digits.accuracy(model, *data[2:]) for name, model in models.items()}
    assert reached["float"] > 0.985
    assert reached["W2A2"] >= reached["float"] - 0.02
    assert reached["W1A1"] >= reached["float"] - 0.05
