"""Fashion-MNIST, as Debian's package has it."""

import pytest
import torch

from tvm_bitenc.nn import datasets


def test_the_data():
    if not datasets.FOLDER.exists():
        pytest.skip("apt-get install dataset-fashion-mnist")
    x_train, y_train, x_test, y_test = datasets.load_fashion()
    assert (len(x_train), len(x_test)) == (60_000, 10_000) and x_train.shape[1:] == (1, 28, 28)
    assert torch.equal(y_test.bincount(), torch.full((10,), 1000))
    assert (y_train[:3].tolist(), float(x_train.min()), float(x_train.max())) == ([9, 0, 0], 0, 1)


def test_data_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("FASHION_MNIST", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist"):
        datasets.load_fashion()
