"""`packed_concat` and `packed_slice` move channels across the borders of words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_bitenc.encoding import pack
from tvm_bitenc.op.packed_channels import packed_concat, packed_slice
from tvm_bitenc.te.channels import concat_channels, slice_channels
from tvm_bitenc.transform import no_lowering

rng = np.random.default_rng(0)


def random_codes(channels, bits=2):
    return rng.integers(0, 2**bits, (2, 3, 2, channels), dtype=np.uint8)


@pytest.mark.parametrize("options", [dict(pipeline=no_lowering), dict()], ids=["plain", "built"])
def test_they_move_channels(options, module_of, outputs_of, same):
    parts = [random_codes(channels) for channels in (7, 64, 130, 1)]
    channels = [part.shape[-1] for part in parts]
    joined = np.concatenate(parts, axis=-1)
    ranges = [(0, 7), (5, 70), (64, 128), (100, 202), (63, 64)]

    def body(builder, *planes):
        whole = builder.emit(packed_concat(planes, channels))
        return [whole, *(builder.emit(packed_slice(whole, *ends)) for ends in ranges)]

    planes = [pack(part, 2) for part in parts]
    mod = module_of([p.shape for p in planes], body, "uint64")
    expected = [joined, *(joined[..., begin:end] for begin, end in ranges)]
    for y, codes in zip(outputs_of(mod, planes, **options), expected, strict=True):
        assert same(y, pack(codes, 2))


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 150), min_size=1, max_size=4), st.data())
def test_any_channels(run_te, channels, data):
    parts = [random_codes(count, 1) for count in channels]
    whole = np.concatenate(parts, axis=-1)
    planes = run_te(
        lambda *tensors: concat_channels(tensors, channels), *(pack(part, 1) for part in parts)
    )
    assert np.array_equal(planes, pack(whole, 1))
    begin = data.draw(st.integers(0, whole.shape[-1] - 1))
    end = data.draw(st.integers(begin + 1, whole.shape[-1]))
    cut = run_te(lambda tensor: slice_channels(tensor, begin, end), planes)
    assert np.array_equal(cut, pack(whole[..., begin:end], 1))
