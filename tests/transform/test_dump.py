"""The module after every pass, in numbered files."""

import numpy as np
import pytest
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

import tvm_bitenc as be
from tvm_bitenc import op as bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import BitencError
from tvm_bitenc.target import native_target
from tvm_bitenc.transform import default_pipeline

ACT, WEIGHT = Encoding.unsigned(2, 0.5), Encoding.symmetric(2, 2.0)
VALUES = relax.const(WEIGHT.dequantize(np.array([[[[0]], [[3]]]], np.uint8)))


@I.ir_module
class Network:
    @R.function
    def main(x: R.Tensor((1, 2, 4, 4), "float32")):
        with R.dataflow():
            a = bitenc.quantize(x, ACT)
            w = bitenc.quantize(VALUES, WEIGHT, layer="conv")
            y = R.nn.conv2d(a, w)
            R.output(y)
        return y


def test_a_file_for_every_pass(tmp_path):
    be.build(Network, threads=1, dump=tmp_path / "dump")
    files = sorted((tmp_path / "dump").iterdir())
    passes = [name.removeprefix("bitenc.") for name in default_pipeline(native_target()).names]
    assert [file.stem.partition("_")[2] for file in files] == ["imported", *passes]
    for name, text in {
        "imported": "bitenc.quantize",
        "Lower": "bitenc.branch_conv2d",
        "Layout": "bitenc.packed_conv2d",
        "Strategy": '"strategy": "',
        "Schedule": "packed_conv2d_conv_",
    }.items():
        (file,) = (tmp_path / "dump").glob(f"*_{name}.py")
        assert text in file.read_text(), name


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BitencError, match=r"file.*can't be written"):
        be.build(Network, threads=1, dump=tmp_path / "file")
