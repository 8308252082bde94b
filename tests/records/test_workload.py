import pytest
import tvm

from tvm_bitenc.records.workload import (
    numbers_of,
    parse_workload,
    target_key,
    tvm_version,
    workload_of,
)
from tvm_bitenc.target import Target, load_target
from tvm_bitenc.tuning.synthetic import call_of

ARM = {"kind": "llvm", "mtriple": "aarch64-linux-gnu"}
TEXTS = [
    "conv2d 1x6x6x64->64 3x3 W2A2 stride=1,1 padding=1,1,1,1 dilation=1,1 groups=1 from=planes"
    " to=A2 offsets=3,0 threads=1",
    "conv2d nx9x7x96->32 1x3 W2(1,1)A3 stride=2,1 padding=0,0,1,1 dilation=1,2 groups=1"
    " from=planes to=int32 offsets=-7,1 threads=pool",
    "conv2d 2x8x8x64->64 1x1 W1A1 stride=1,1 padding=0,0,0,0 dilation=1,1 groups=1 from=planes"
    " to=floats:astype+multiply_add+residual offsets=0,0 threads=2",
    "conv2d 1x32x32x3->16 3x3 W8A8 stride=2,2 padding=1,1,1,1 dilation=1,1 groups=1 from=codes"
    " to=A4 offsets=0,0 threads=1",
    "conv2d 1x32x32x3->16 3x3 W2A3 stride=2,2 padding=1,1,1,1 dilation=1,1 groups=1 from=planes"
    " to=A4 offsets=1,0 branches=1,0,-4;0,2,0 threads=1",
    "conv2d 1x14x14x64->128 3x3 W1A2 stride=1,1 padding=1,1,1,1 dilation=1,1 groups=1 from=planes"
    " to=A2 offsets=3,0 copies=2 codewords=32 threads=1",
    "conv2d 1x7x7x16->24 3x3 W2A2 stride=1,1 padding=1,1,1,1 dilation=1,1 groups=1 from=planes"
    " to=A2 offsets=3,0 rows=9 codewords=64 threads=1",
]
MATRIX = TEXTS[4]


@pytest.mark.parametrize("text", TEXTS)
def test_text_says_all(text):
    """A layer made from the text alone has that text again."""
    target = load_target("native", None if "pool" in text else int(text[-1]))
    call = call_of(parse_workload(text))
    assert str(parse_workload(text)) == text
    assert workload_of(_typed(call), target) == text


def _typed(call):
    from tvm import relax

    return relax.BlockBuilder().normalize(call)


def test_numbers_are_those_of_the_output():
    numbers = numbers_of(TEXTS[1])
    assert (numbers["height"], numbers["width"], numbers["taps"]) == (5, 4, 3)
    assert (numbers["weight_bits"], numbers["act_bits"], numbers["threads"]) == (2, 3, 0)


@pytest.mark.parametrize("text", ["", "conv3d 1x2", TEXTS[0] + " more"])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match="isn't a workload"):
        parse_workload(text)


@pytest.mark.parametrize(
    "matrix, cause",
    [("1,2;0,3", "no matrix of 2 rows and 3 columns"), ("0,0,0;0,0,0", "no branch")],
)
def test_other_matrices_are_refused(matrix, cause):
    with pytest.raises(ValueError, match=cause):
        parse_workload(MATRIX.replace("1,0,-4;0,2,0", matrix))


@pytest.mark.parametrize("sharing", ["rows=25", "copies=2 rows=9"])
def test_rows_that_channels_cant_share_are_refused(sharing):
    with pytest.raises(ValueError, match="24 channels in . copies don't share"):
        parse_workload(TEXTS[-1].replace("rows=9", sharing))


def test_numbers_tell_of_what_is_shared():
    numbers = numbers_of(TEXTS[-1])
    assert (2 ** numbers["distinct"], numbers["codewords"]) == (pytest.approx(9), 64)
    assert numbers_of(TEXTS[-2])["distinct"] == 6


def test_keys_tell_cpus_apart():
    keys = {target_key(load_target(name)) for name in ("x86-64-v3", "x86-64-v4", "cortex-a72")}
    assert len(keys) == 3
    plain, *wider = (
        target_key(Target("board", tvm.target.Target({**ARM, "mattr": list(features)})))
        for features in (["+neon"], ["+neon", "+sve"], ["+neon", "+sve2"])
    )
    assert len({plain, *wider}) == 3 and plain == "aarch64 generic neon"
    assert tvm_version().count(".") == 1
