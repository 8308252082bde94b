"""The report as a table, a dictionary and a page."""

import json
import re
from html.parser import HTMLParser

import pytest
from tvm import relax

import tvm_bitenc as be
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import BitencError
from tvm_bitenc.report import FloatLayer, FloatOps, LayerRow, Report
from tvm_bitenc.report.html import write_page

pytest.importorskip("jinja2", reason="pip install 'tvm-bitenc[report]'")

REPORT = Report(
    "board",
    [
        LayerRow("conv1", "3x3 3->64 @8x8/2", 8, 8, 2, "int8", 110_592, 6_912, 3_456),
        LayerRow("a<b>&c", "1x1 64->10 @1x1", 1, 2, 32, "xnor", 640, 2_560, 80),
    ],
    [FloatLayer("head", "its input isn't quantized", "Quantize it", 2_000)],
    [FloatOps("softmax", 2, ["a", "b"])],
    ["conv1: could be cheaper"],
)


def test_table():
    assert str(REPORT).splitlines() == [
        "target board; sizes are bytes of weights",
        "layer   shape             bits  out      strategy  schedule         MACs  float32  stored",
        "------  ----------------  ----  -------  --------  ------------  -------  -------  ------",
        "conv1   3x3 3->64 @8x8/2  W8A8  A2       int8      default rule  110,592    6,912   3,456",
        "a<b>&c  1x1 64->10 @1x1   W1A2  32 bits  xnor      default rule      640    2,560      80",
        "total                                                            111,232    9,472   3,536",
        "float: head (2,000 MACs): its input isn't quantized. Quantize it",
        "float: 2 x softmax in a, b",
        "note: conv1: could be cheaper",
        "98.2 % of the multiply-accumulates run on codes",
    ]


def test_an_empty_report_is_a_table_too():
    assert str(Report("board")).splitlines()[-1].split() == ["total", "0", "0", "0"]


def test_dictionary_survives_json():
    assert Report.from_dict(json.loads(json.dumps(REPORT.to_dict()))) == REPORT


@pytest.fixture(scope="module")
def report(random_layer, module_of):
    """Of a 1-bit convolution that ends in codes, one of stride 2, and a float one."""
    w1, a2 = Encoding.symmetric(1, 2.0), Encoding.unsigned(2, 2.0)
    first = random_layer(0, w1, a2, name="first", channels=64, out_channels=32, padding=1)
    second = random_layer(
        1, Encoding.signed(4, 2.0), a2, name="second", channels=32, stride=2, kernel=(2, 3)
    )

    def body(builder, x):
        y = second.emit(builder, first.emit(builder, x))
        weight = relax.const(second.weight.dequantize(second.weight_codes)[:, :8])
        return builder.emit(relax.op.nn.conv2d(y, weight, padding=(2, 2)))

    return be.build(module_of([first.act_codes.shape], body), strategy="xnor").report()


def test_what_a_network_became(report):
    first, second = report.layers
    assert (first.name, first.shape) == ("first", "3x3 64->32 @6x5")
    assert (first.weight_bits, first.act_bits, first.out_bits) == (1, 2, 2)
    assert first.macs == 6 * 5 * 9 * 64 * 32
    assert first.float_bytes == 4 * 9 * 64 * 32 and first.stored_bytes == 9 * 64 * 32 // 8
    assert (second.name, second.shape) == ("second", "2x3 32->8 @3x2/2")
    assert (second.weight_bits, second.out_bits) == (4, 32)
    assert report.float_bytes == first.float_bytes + second.float_bytes
    assert report.stored_bytes == first.stored_bytes + second.stored_bytes
    (left,) = report.float_layers
    assert "conv2d" in left.name and left.macs == 6 * 4 * 8 * 8 * 6
    assert left.reason == "its input isn't quantized: it comes from conv2d"


class Cells(HTMLParser):
    """Texts of a page's table cells, and every tag that would load something."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.loaded, self.open = [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.loaded += [v for k, v in attributes if k in ("src", "href") and v[:5] != "data:"]
        self.open = tag if tag in ("td", "th") else None
        if tag == "tr":
            self.rows.append([])
        elif self.open:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.open = None

    def handle_data(self, text):
        if self.open:
            self.rows[-1][-1] += text


def test_page(tmp_path):
    path = REPORT.to_html(tmp_path / "report.html")
    page = path.read_text(encoding="utf-8")
    cells = Cells(page)
    headings, rows = REPORT.table()
    assert cells.rows == [headings, *rows]
    assert "a<b>" not in page and "Target board" in page
    assert "Stayed float: head (2,000 MACs): its input isn&#39;t quantized. Quantize it." in page
    assert "Float arithmetic: 2 x softmax in a, b." in page
    assert "Note: conv1: could be cheaper." in page
    assert cells.loaded == [] and not re.search(r"https?://|<script", page)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_page_with_a_picture(tmp_path):
    section = {"heading": "Picture", "paragraphs": ["One."], "image": "data:image/png;base64,AA=="}
    page = write_page(tmp_path / "p.html", "Title & more", [section]).read_text(encoding="utf-8")
    assert '<img alt="Picture" src="data:image/png;base64,AA==">' in page
    assert "<title>Title &amp; more</title>" in page and "<table>" not in page


def test_nothing_half_written(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_page(path, "title", [{"heading": "x", "paragraphs": 3}])
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(BitencError, match="can't be written.*Use another folder"):
        REPORT.to_html(tmp_path / "missing" / "report.html")


def test_without_jinja2(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(BitencError, match=r"jinja2 isn't installed.*pip install.*\[report\]"):
        REPORT.to_html(tmp_path / "report.html")
    assert not list(tmp_path.iterdir())
