"""What a model or a file calls its parts never reaches a terminal or a page as it is."""

import re

import numpy as np
import pytest
from tvm import relax

import tvm_bitenc as be
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import BitencError, LibraryError, first_line
from tvm_bitenc.op import quantize
from tvm_bitenc.printable import printable
from tvm_bitenc.report import FloatLayer, Report
from tvm_bitenc.report.html import write_page
from tvm_bitenc.runtime.specs import TensorSpec

# Colours, a title, a bell, a line end, a change of direction, a line separator, half a character.
HOSTILE = "a\x1b[31m\x9b1m\x07\r\nTotal\u202etxt\u2066\u2028\u200b\ud800"
ESCAPED = r"a\x1b[31m\x9b1m\x07\r\nTotal\u202etxt\u2066\u2028\u200b\ud800"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202f\u2066-\u2069\ud800]")


@pytest.mark.parametrize(
    "text, shown",
    [
        ("conv1.weight", "conv1.weight"),
        ("Größe, 大きさ, 😀", "Größe, 大きさ, 😀"),
        (HOSTILE, ESCAPED),
        ("", ""),
    ],
)
def test_texts(text, shown):
    assert printable(text) == shown == printable(shown)


def test_what_is_kept():
    assert printable("a\nb\x1bc", keep="\n") == "a\nb\\x1bc"


def test_errors():
    error = LibraryError(HOSTILE, f"has {HOSTILE}", f"Rename {HOSTILE}")
    assert not CONTROL.search(str(error)) and str(error).startswith(f"{ESCAPED}: has a")
    again = BitencError(str(error))  # As TVM rebuilds it.
    assert str(again) == str(error)
    assert str(BitencError("gcc", "says\n\tno", "Ask it")) == "gcc: says\n\tno. Ask it."
    assert first_line(ValueError("\x1b[1m")) == r"\x1b[1m"


@pytest.fixture(scope="module")
def lib(module_of):
    """A quantized layer and a float one, both of hostile names; one of an input besides."""
    name = HOSTILE.replace("\ud800", "")
    act, weight = Encoding.unsigned(2, 0.5), Encoding.symmetric(2, 1.0)
    values = relax.const(np.ones((4, 4, 1, 1), np.float32))

    def body(builder, x):
        a = builder.emit(quantize(x, act, layer=name))
        w = builder.emit(quantize(values, weight, layer=name))
        y = builder.emit(relax.op.nn.conv2d(a, w), name)
        return builder.emit(relax.op.nn.conv2d(y, values), name)

    return be.build(module_of([(1, 4, 3, 3)], body), threads=1)


def test_reports(lib, tmp_path, capsys):
    report = lib.report()
    hostile = Report(HOSTILE, report.layers, [FloatLayer(HOSTILE, HOSTILE, HOSTILE)], [], [HOSTILE])
    for each in (report, hostile, Report.from_dict(hostile.to_dict())):
        print(each)
        assert not CONTROL.search(capsys.readouterr().out)
        assert not CONTROL.search(each.to_html(tmp_path / "page.html").read_text())
    assert str(hostile).count(ESCAPED) == 5
    assert not CONTROL.search(str(lib.benchmark(np.ones((1, 4, 3, 3), np.float32), number=1)))


def test_pages_of_any_text(tmp_path):
    section = {
        "heading": HOSTILE,
        "paragraphs": [HOSTILE],
        "headings": [HOSTILE],
        "rows": [[HOSTILE]],
    }
    page = write_page(tmp_path / "page.html", HOSTILE, [section]).read_text()
    assert not CONTROL.search(page) and page.count(r"\x1b[31m") >= 4


def test_inputs_and_libraries(lib, tmp_path):
    assert TensorSpec(HOSTILE, (1,), "float32").name == ESCAPED
    loaded = be.load(lib.export_library(tmp_path / "net.so"))
    assert not CONTROL.search(str(loaded.report())) and loaded.report() == lib.report()
    with pytest.raises(BitencError) as refused:
        be.load(tmp_path / "\x1b[31m.so")
    assert "\x1b" not in str(refused.value)
