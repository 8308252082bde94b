import importlib.util
from pathlib import Path

import pytest
import torch
from torch.nn import functional

import tvm_bitenc
from tvm_bitenc.nn import (
    BitPlaneConv2d,
    CodebookConv2d,
    DigitsCNN,
    FashionNet,
    PiecewiseConv2d,
    QConv2d,
    QLinear,
    ResNet18,
    init_from,
)


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn", reason="pip install scikit-learn")
    path = Path(__file__).parents[2] / "tutorials" / "digits.py"
    spec = importlib.util.spec_from_file_location("digits", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pytestmark = pytest.mark.usefixtures("one_thread")


def test_bits_of_each_layer():
    model = DigitsCNN(2, 3)
    layers = [model.conv1, model.conv2, model.conv3, model.classifier]
    assert [(m.weight_bits, m.act.bits) for m in layers] == [(8, 8), (2, 3), (2, 3), (8, 8)]
    pixels = torch.arange(17.0)
    assert (model.conv1.act(pixels) - pixels).abs().max() < 0.0314  # 16 / 255 / 2


@pytest.fixture
def small_resnet():
    """A function from bits to a narrow ResNet18 whose batch-norms do something."""

    def make(weight_bits, act_bits):
        torch.manual_seed(0)
        model = ResNet18(weight_bits, act_bits, num_classes=10, width=8).eval()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                torch.nn.init.uniform_(module.weight, -0.5, 1.5)
                torch.nn.init.normal_(module.bias, 0, 0.3)
        return model

    return make


def test_resnet_has_the_usual_layers():
    model = ResNet18(1, 2).eval()
    layers = {name: m for name, m in model.named_modules() if isinstance(m, (QConv2d, QLinear))}
    assert [(m.weight_bits, m.act.bits) for m in layers.values()] == [
        (8, 8),
        *19 * [(1, 2)],
        (8, 8),
    ]
    assert [name for name in layers if "shortcut" in name] == [
        f"stage{i}.0.shortcut.0" for i in (2, 3, 4)
    ]
    # torchvision's ResNet-18 has this many, a bias of the classifier included.
    assert sum(p.numel() for p in model.parameters()) == 11_689_512
    shapes = []
    for stage in (model.pool1, model.stage1, model.stage2, model.stage3, model.stage4):
        stage.register_forward_hook(lambda _module, _input, y: shapes.append(tuple(y.shape[1:])))
    with torch.no_grad():
        assert model(torch.randn(1, 3, 224, 224)).shape == (1, 1000)
    assert shapes == [(64, 56, 56), (64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]


def test_stem_takes_normalised_images_without_clipping():
    quantizer = ResNet18(1, 1, width=8).conv1.act
    darkest, lightest = -0.485 / 0.229, (1 - 0.406) / 0.225
    pixels = torch.linspace(darkest, lightest, 1000)
    assert (quantizer(pixels) - pixels).abs().max() < 2.65 / 255


@pytest.mark.slow
def test_resnet_compiles_to_the_same_bits(small_resnet, same):
    model, x = small_resnet(1, 1), torch.randn(2, 3, 64, 64)
    program = torch.export.export(model, (x,))
    assert torch.equal(program.module()(x), model(x))
    lowered = tvm_bitenc.build(tvm_bitenc.from_torch(program))
    assert len(lowered.report().layers) == 21 and not lowered.report().float_layers
    # Codes of 8 bits hide in which order torch sums its average pool of 2x2.
    assert same(lowered(x), model(x).detach().numpy())


@pytest.mark.parametrize(
    "options, kind",
    [
        (dict(weight_bits=2, act_bits=2), QConv2d),
        (dict(weight_bits=1, act_bits=1, tiles=4), QConv2d),
        (dict(codewords=32, select="permute", act_bits=2), CodebookConv2d),
        (dict(weight_pieces=4, act_steps=5), PiecewiseConv2d),
    ],
)
def test_fashion_net_starts_from_its_float_twin(options, kind):
    twin, x = FashionNet().eval(), torch.rand(2, 1, 28, 28)
    model = init_from(FashionNet(options), twin).eval()
    layers = [block.conv for block in model.blocks]
    assert {type(layer) for layer in layers} == {kind}
    if kind is PiecewiseConv2d:
        assert [(layer.weight_pieces, len(layer.act.bounds)) for layer in layers] == 3 * [(4, 5)]
    else:
        tiles = options.get("tiles", 1)
        assert [layer.act.bits for layer in layers] == 3 * [options["act_bits"]]
        assert [layer.tiles for layer in layers] == [1, tiles, tiles]
    assert model(x).shape == twin(x).shape == (2, 10)
    assert torch.equal(layers[1].weight, twin.blocks[1].conv.weight)


@pytest.mark.parametrize(
    "first, kind, bits", [("int8", QConv2d, 8), ("planes", BitPlaneConv2d, 8), ("sign", QConv2d, 1)]
)
def test_first_layers_of_fashion_net(first, kind, bits):
    twin, x = FashionNet().eval(), torch.arange(256.0).reshape(1, 1, 16, 16) / 255
    x = functional.pad(x, (6, 6, 6, 6))
    model = init_from(FashionNet(dict(weight_bits=1, act_bits=1), first), twin).eval()
    assert type(model.first) is kind
    assert (model.first.bits if first == "planes" else model.first.weight_bits) == bits
    assert model(x).shape == (1, 10)
    seen = model.pixels(x)
    if first == "planes":
        assert torch.equal(seen.unique(), torch.arange(256.0))  # Whole numbers, though rounded.
        assert torch.equal(model.first.weight, twin.first.weight.expand(8, -1, -1, -1, -1))
    elif first == "sign":
        assert torch.equal(model.first.act(seen), torch.where(x >= 0.5, 1.0, -1.0))
    else:
        assert torch.equal(model.first.act(seen), model.first.act(x))


def test_copies_of_a_channel_get_different_sums_of_tiles():
    """Otherwise channels would be equal, for batch-norms take off what tiles are scaled by."""
    torch.manual_seed(0)
    model = FashionNet(dict(weight_bits=1, act_bits=2, tiles=4))
    y = model.blocks[1](torch.rand(2, 64, 8, 8)).transpose(0, 1).flatten(1)
    alike = (y[:, None] - y).abs().amax(2) < 1e-2
    assert int(alike.sum()) == 128  # Each channel is like itself alone.


def test_fashion_net_names_an_unknown_first_layer():
    with pytest.raises(ValueError, match="FashionNet: first 'planes8'"):
        FashionNet(first="planes8")


@pytest.mark.parametrize("network", [DigitsCNN, ResNet18])
def test_float_twin_has_the_same_names_and_starts_a_quantized_model(network):
    twin = network(None, None)
    assert not any(isinstance(m, (QConv2d, QLinear)) for m in twin.modules())
    model = init_from(network(8, 8), twin)
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in twin.named_parameters()]


def test_export_is_bit_identical():
    model, x = DigitsCNN(2, 2).eval(), torch.randint(17, (3, 1, 8, 8)).float()
    program = torch.export.export(model, (x,))
    assert torch.equal(program.module()(x), model(x))


@pytest.mark.parametrize("network", [DigitsCNN, ResNet18])
def test_none_for_one_of_the_bits_is_an_error(network):
    with pytest.raises(ValueError, match=f"{network.__name__}.*both"):
        network(None, 2)


def test_split_is_stratified_and_fixed(digits):
    x_train, y_train, x_test, y_test = digits.load_digits()
    assert x_train.shape == (1347, 1, 8, 8) and x_test.shape == (450, 1, 8, 8)
    assert x_train.dtype == torch.float32 and (x_train.min(), x_train.max()) == (0, 16)
    counts = torch.bincount(y_train), torch.bincount(y_test)
    assert (counts[0] / 1347 - counts[1] / 450).abs().max() < 0.003
    assert torch.equal(digits.load_digits()[2], x_test)


@pytest.mark.slow
def test_training_learns_and_repeats(digits):
    data = digits.load_digits()
    runs, names = [], []
    for _ in range(2):
        models = digits.train_route((2,), data, epochs=2, progress=names.append)
        runs.append([digits.accuracy(model, *data[2:]) for model in models.values()])
    assert list(models) == ["float", "W2A2"]
    assert names == 2 * (2 * ["float"] + 2 * ["W2A2"])
    assert runs[0] == runs[1]
    assert min(runs[0]) > 0.9
    assert not any(model.training for model in models.values())


@pytest.mark.slow
def test_the_whole_route_loses_little(digits):
    data = digits.load_digits()
    models = digits.train_route((4, 2, 1), data, low_epochs=8)
    reached = {name: digits.accuracy(model, *data[2:]) for name, model in models.items()}
    assert reached["float"] > 0.985
    assert reached["W2A2"] >= reached["float"] - 0.02
    assert reached["W1A1"] >= reached["float"] - 0.05
