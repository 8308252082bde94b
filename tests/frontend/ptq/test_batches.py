"""Calibration data: what is accepted, and what is named as wrong."""

import numpy as np
import pytest
import torch

from tvm_bitenc.errors import BitencError
from tvm_bitenc.frontend.ptq.batches import checked_batches

GOOD = torch.rand(2, 3)


def test_tensors_arrays_tuples_generators_and_dictionaries():
    assert checked_batches(GOOD)[0][0] is GOOD
    assert len(checked_batches(GOOD + i for i in range(3))) == 3
    batches = checked_batches([GOOD, GOOD.numpy(), (GOOD, torch.arange(2)), [GOOD]])
    assert [len(batch) for batch in batches] == [1, 1, 2, 1]
    assert checked_batches({"x": GOOD})[0]["x"] is GOOD


@pytest.mark.parametrize(
    "batches, message",
    [
        ([], r"no calibration data"),
        (iter([]), r"no calibration data"),
        ([GOOD, GOOD * np.nan], r"batch 1.*NaN"),
        ([(GOOD, GOOD / 0)], r"batch 0.*infinity"),
        ([GOOD.double()], r"batch 0.*float64.*float32"),
        ([GOOD.half().numpy()], r"batch 0.*float16"),
        ([GOOD[:0]], r"batch 0.*is empty: \(0, 3\)"),
        (["text"], r"batch 0.*str"),
        ([[1.0, 2.0]], r"batch 0.*has float in it"),
        ([{"x": None}], r"batch 0.*NoneType"),
        (3, r"int isn't iterable"),
    ],
    ids=range(11),
)
def test_wrong_data_is_named(batches, message):
    with pytest.raises(BitencError, match=message):
        checked_batches(batches)
