"""The training loop: what it calls, how rates fall, and that it repeats itself."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tvm_bitenc.nn import CodebookConv2d
from tvm_bitenc.nn.training import distilled, train


class Adam(torch.optim.Adam):
    """Writes down the rates of its groups, and what it trains at them."""

    steps: list

    def step(self, *arguments):
        self.steps.append([group["lr"] for group in self.param_groups])
        type(self).groups = [len(group["params"]) for group in self.param_groups]
        return super().step(*arguments)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def data():
    torch.manual_seed(0)
    labels = torch.arange(24) % 4
    return labels[:, None, None, None] / 4 + torch.rand(24, 1, 5, 5) / 8, labels


def net(select=None):
    torch.manual_seed(0)
    options = dict(codewords=16, select=select, act_bits=2)
    conv = CodebookConv2d(8, 8, 3, **options) if select else nn.Conv2d(8, 8, 3)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), conv, nn.Flatten(), nn.Linear(8, 4))


def test_it_learns_and_repeats_itself(data):
    models = [train(net(), *data, epochs=10, rate=1e-2, batch_size=8) for _ in range(2)]
    for a, b in zip(models[0].parameters(), models[1].parameters()):
        assert torch.equal(a, b)
    model = models[0]
    loss = functional.cross_entropy(model(data[0]), data[1])
    assert not model.training and loss < 0.5 * functional.cross_entropy(net()(data[0]), data[1])


@pytest.mark.parametrize("options", [{}, dict(codebook_rate=3.0)])
def test_rates_fall_as_a_cosine_and_codebooks_have_their_own(data, options):
    Adam.steps, epochs = [], []
    model = net("permute")
    options = dict(optimizer=Adam, batch_size=10, progress=lambda: epochs.append(0), **options)
    train(model, *data, 2, 1e-2, **options)
    rates = [
        1e-2 * (1 + torch.cos(torch.tensor(step / 6 * torch.pi)).item()) / 2 for step in range(6)
    ]
    factor = options.get("codebook_rate", 10)
    assert [own for own, _ in Adam.steps] == pytest.approx(rates)
    assert [choice for _, choice in Adam.steps] == pytest.approx([factor * r for r in rates])
    assert Adam.groups == [len(list(model.parameters())) - 1, 1] and len(epochs) == 2
    assert model[2].choice.noise == pytest.approx(0.3 / 6)


def test_rates_may_fall_by_epochs(data):
    Adam.steps = []
    train(net(), *data, 2, 1e-2, optimizer=Adam, batch_size=10, falls_by="epoch")
    assert [rate for (rate,) in Adam.steps] == pytest.approx([1e-2] * 3 + [5e-3] * 3)
    with pytest.raises(ValueError, match="falls_by 'batch'. Use one of"):
        train(net(), *data, 2, falls_by="batch")


def test_batches_are_augmented(data):
    seen = []

    def augment(x, generator):
        seen.append((len(x), torch.rand((), generator=generator).item()))
        return x

    train(net(), *data, epochs=1, batch_size=10, augment=augment, seed=3)
    assert [count for count, _ in seen] == [10, 10, 4] and len({draw for _, draw in seen}) == 3


def test_targets_are_halfway_to_the_teachers(data):
    teacher = net().eval()
    targets = distilled(teacher, *data, batch_size=7)
    want = (teacher(data[0]).softmax(1) + functional.one_hot(data[1], 4)) / 2
    torch.testing.assert_close(targets, want.detach())
    assert not targets.requires_grad
    train(net(), data[0], targets, epochs=1)
