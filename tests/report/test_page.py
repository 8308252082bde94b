"""The page of a report: what is drawn, and how it looks in a browser."""

import io
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tvm_bitenc.program import Benchmark
from tvm_bitenc.report import FloatLayer, LayerRow, Report
from tvm_bitenc.report.page import bars, compare, duration, graph, roofline, write_comparison
from tvm_bitenc.report.roof import Roof
from tvm_bitenc.report.timing import OTHER, layer_seconds, rows_of_time
from tvm_bitenc.target import Core, native_target

pytest.importorskip("jinja2", reason="pip install 'tvm-bitenc[report]'")


def row(name, strategy, macs=1_000_000, bits=2):
    shape = "3x3 64->64 @14x14"
    sizes = dict(float_bytes=4000, stored_bytes=250, moved_bytes=10_000)
    return LayerRow(name, shape, bits, bits, bits, strategy, macs, **sizes)


REPORT = Report(
    "board",
    [row("stem", "int8", bits=8), row("body.conv", "xnor"), row("body.join", "lut")],
    [FloatLayer("head", "its input isn't quantized", "Quantize it", 500)],
    edges=[(-1, 0), (0, 1), (0, 2), (1, 2)],
)
CALLS = (
    ("packed_encode", 1e-6),
    ("packed_conv2d_stem_int8", 4e-6),
    ("packed_conv2d_body_conv_xnor", 2e-6),
    ("packed_conv2d_body_join_lut", 3e-6),
)
TIMES = Benchmark(np.array([9e-6, 1e-5]), dict(CALLS), CALLS)
HERE = replace(native_target(), core=Core(source="a test"))
ROOF = Roof(HERE, 3.0, 50.0, 1)


def test_times_are_those_of_the_calls_in_order():
    assert layer_seconds(REPORT, TIMES) == [4e-6, 2e-6, 3e-6]
    *layers, (name, _, rest) = rows_of_time(REPORT, TIMES)
    assert [each[0] for each in layers] == ["stem", "body.conv", "body.join"]
    assert name == OTHER and rest == pytest.approx(1e-6)


def test_times_that_fit_no_layer_are_those_of_kernels():
    shuffled = Benchmark(TIMES.seconds, TIMES.layers, (CALLS[2], CALLS[1], CALLS[3]))
    for times in (shuffled, Benchmark(TIMES.seconds, TIMES.layers)):
        assert layer_seconds(REPORT, times) is None
        assert rows_of_time(REPORT, times) == [(name, "", each) for name, each in CALLS]
        assert roofline(REPORT, times, ROOF) is None


def test_graph_has_a_line_for_neighbours_and_an_arc_past_a_layer():
    drawn = graph(REPORT)
    assert [name for _, name, _, _ in drawn["nodes"]] == ["input", "stem", "body.conv", "body.join"]
    assert len(drawn["lines"]) == 3 and len(drawn["arcs"]) == 1
    top, bottom, x = drawn["arcs"][0]
    assert (top, bottom) == (drawn["nodes"][1][0], drawn["nodes"][3][0]) and 0 < x < drawn["left"]


def test_bars_are_shares_of_the_longest():
    drawn = bars([("a", "xnor", 2e-6), ("b", "", 1e-6)])
    assert [bar["width"] for bar in drawn] == [100, 50]
    assert drawn[0]["text"] == "2.0 us, 67 %" and drawn[1]["kind"] == "other"
    assert [duration(s) for s in (2.0, 0.0025, 1e-7)] == ["2.00 s", "2.50 ms", "0.1 us"]


def test_no_point_of_the_roofline_is_outside_and_fast_layers_are_higher():
    drawn = roofline(REPORT, TIMES, ROOF)
    assert [point["name"] for point in drawn["points"]] == ["stem", "body.conv", "body.join"]
    for point in drawn["points"]:
        assert 0 <= point["x"] <= drawn["width"] and 0 <= point["y"] <= drawn["height"]
    stem, conv, join = (point["y"] for point in drawn["points"])
    assert conv < join < stem  # The picture's y goes down.
    assert {roof["kind"] for roof in drawn["roofs"]} == {"int8", "xnor", "lut"}
    assert roofline(REPORT, TIMES, replace(ROOF, target=replace(HERE, core=Core()))) is None


def test_comparison_matches_layers_by_name(tmp_path):
    other = Report("board", [row("stem", "int8", bits=8), row("new", "xnor", bits=1)])
    totals, rows = compare(("a", REPORT, TIMES), ("b", other, None))
    found = {name: sides for name, *sides in rows}
    assert found["stem"] == ["W8A8 int8, 250 bytes, 4.0 us", "W8A8 int8, 250 bytes"]
    assert found["new"] == ["", "W1A1 xnor, 250 bytes"] and found["head"] == ["float", ""]
    assert ("per run", "9.0 us", "") in totals
    page = write_comparison(("a<b", REPORT, TIMES), ("b", other, None), tmp_path / "c.html")
    assert "a&lt;b" in page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("apt-get install chromium")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("pages") / "report.html"
    return REPORT.to_html(path, benchmark=TIMES, accuracy="71.2 %", roof=ROOF)


@pytest.mark.sweep(1)
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(browser, file, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    failed = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.on("console", lambda message: failed.append(message.text))
    page.goto(file.as_uri())
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width and not failed
    assert page.locator("#graph circle").count() == 4
    assert page.locator("#roofline circle").count() == 3
    longest, shorter = (page.locator("#times .bar span").nth(i).bounding_box() for i in (0, 1))
    assert longest["width"] == pytest.approx(2 * shorter["width"], rel=0.02)
    text = page.locator("#graph text").first.bounding_box()
    assert text["height"] >= 9 and page.locator("#graph").bounding_box()["width"] <= width
    picture = pixels(page.screenshot(full_page=True))
    background = picture[3, 3].mean()
    assert background > 0.9 if scheme == "light" else background < 0.2
    ink = np.abs(picture.mean(2) - background) > 0.3
    assert ink.mean() > 0.01 and ink[: len(ink) // 4].any() and ink[-len(ink) // 4 :].any()
    page.close()


def pixels(png: bytes) -> np.ndarray:
    """Red, green and blue from 0 to 1."""
    image = pytest.importorskip("matplotlib.image", reason="pip install matplotlib")
    return image.imread(io.BytesIO(png))[..., :3]
