"""Documents from anyone: declared types or one error that names file, place and cure."""

import json
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Meta

import tvm_bitenc as be
from tvm_bitenc.data import data_folder
from tvm_bitenc.decode import Document, Limits, Size, Source
from tvm_bitenc.deploy import library
from tvm_bitenc.deploy.sealed import append_sealed
from tvm_bitenc.errors import BitencError, LibraryError, TargetError
from tvm_bitenc.frontend.ptq.checkpoint import Checkpoint
from tvm_bitenc.records.file import RecordError, from_json, read_lines
from tvm_bitenc.report.report import Report
from tvm_bitenc.target import load_target


class Part(Document):
    sizes: tuple[Size, ...] = ()
    share: Annotated[float, Meta(ge=0, le=1)] = 0.0


class Whole(Document):
    name: str
    part: Part = Part()
    others: dict[str, Part] | None = None


SOURCE = Source("file 'x'", "Mend it", TargetError, Limits(size=1 << 16, items=1000, depth=8))


def test_what_is_there_arrives():
    whole = SOURCE.json(b'{"name": "\\u00e4[{\\"", "part": {"sizes": [1, 2]}}', Whole)
    assert whole == Whole('\u00e4[{"', Part((1, 2)))
    assert SOURCE.toml(b'name = "a"\n[others.b]\nshare = 1\n', Whole).others["b"].share == 1.0


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "isn't JSON"),
        (b'{"name": 1}', "file 'x', at name: expected `str`, got `int`. Mend it."),
        (b'{"name": "a", "part": {"sizes": [1, 0]}}', r"at part.sizes[1]: expected `int` >= 1"),
        (b'{"name": "a", "part": {"sizes": [1.0]}}', "expected `int`, got `float`"),
        (b'{"name": "a", "part": {"sizes": [true]}}', "expected `int`, got `bool`"),
        (b'{"name": "a", "part": {"sizes": [99999999999999999999999]}}', "expected `int` <="),
        (b'{"name": "a", "part": {"share": NaN}}', "NaN isn't a finite number"),
        (b'{"name": "a", "part": {"share": -Infinity}}', "-Infinity isn't a finite number"),
        (b'{"name": "a", "part": {"share": 1e999}}', "1e999 isn't a finite number"),
        (b'{"name": "a", "other": 1}', "unknown field `other`"),
        (b'{"part": {}}', "missing required field `name`"),
        (b'{"name": "a", "name": "b"}', "the key 'name' is there twice"),
        (b'{"name": "\\ud800"}', "isn't JSON"),
        (b'{"name": "\xff"}', "isn't JSON"),
        (b'\xef\xbb\xbf{"name": "a"}', "begins with a byte order mark"),
        (b'{"name": "a"} x', "isn't JSON"),
        (b"[" * 5000, "is nested 5000 deep, and at most 8 are read"),
        (b'{"name":' * 5000, "is nested 5000 deep"),
        (b'{"name": "a", "part": [' + b"0," * 2000 + b"0]}", "has more than 1,000 elements"),
        (b" " * (1 << 17), "is larger than 65,536 bytes"),
        (b"9" * 5000, "isn't JSON|expected"),
        (b'{"\\u001b[2J": 1, "name": "a"}', r"unknown field `\x1b[2J`"),
        (b'{"name\\nx": 1, "name": "a"}', r"unknown field `name\nx`"),
    ],
    ids=range(23),
)
def test_faults_are_one_line(content, message):
    with pytest.raises(TargetError) as caught:
        SOURCE.json(content, Whole)
    text = str(caught.value)
    assert any(each in text for each in message.split("|")), text
    assert text.startswith("file 'x'") and text.endswith("Mend it.") and text.isprintable()
    assert len(text) < 1000


def test_brackets_in_texts_count_as_text():
    """Many brackets make the decoder look closely; those in strings and comments are none."""
    text = "[{" * 500 + '\\"' + "}" * 99
    assert SOURCE.json(f'{{"name": "{text}"}}'.encode(), Whole).name == text.replace("\\", "")
    for quoted in (f"'{text}'", f"'''{text}'''", f'"{text}"', f'"""{text}"""', f'"""{text}"""""'):
        SOURCE.toml(f"# {text}\nname = {quoted}\n".encode(), Whole)


@pytest.mark.parametrize(
    "content",
    [
        b"x = " + b"[" * 5000,
        b"x = " + b"{a = " * 5000,
        b"x = 'a'\ny = " + b"[" * 5000,
        b'x = """a""""\ny = ' + b"[" * 5000,
        b"x = '''a''''\ny = " + b"[" * 5000,
        b'x = "\\\\"\ny = ' + b"[" * 5000,
        b'x = "unterminated\ny = ' + b"[" * 5000,
        b"[" + b"a." * 5000 + b"a]",
        b'"a"' + b' . "a"' * 5000 + b" = 1",
    ],
    ids=range(9),
)
def test_deep_toml(content):
    with pytest.raises(TargetError, match="nested 5000 deep|dotted key|isn't TOML"):
        SOURCE.toml(content, Whole)


def test_files_that_are_no_files(tmp_path):
    for path in (tmp_path, tmp_path / "missing", Path("/dev/null"), tmp_path / "a\0b"):
        with pytest.raises(TargetError, match="can't be read"):
            SOURCE.read(path)
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(TargetError, match="is larger than"):
        SOURCE.read(large)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def places(value, found):
    """All containers of a document with each of their keys."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        found.append((value, key))
        if isinstance(part, (dict, list)):
            places(part, found)
    return found


def changed(data, document):
    """A copy of a document, of which one or two places hold something else or nothing."""
    copy = json.loads(json.dumps(document))
    for _ in range(data.draw(st.integers(1, 2))):
        found = places(copy, [])
        if not found:
            break
        container, key = data.draw(st.sampled_from(found))
        if data.draw(st.booleans()):
            container[key] = data.draw(PLAIN)
        elif isinstance(container, dict):
            container.pop(key)
        else:
            container.append(container[key])
    return copy


FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
SHIPPED = (data_folder("schedules") / "znver5.jsonl").read_text().splitlines()
RECORDS = [
    json.loads(next(line for line in SHIPPED if kind in line)) for kind in ('"trial"', '"record"')
]
PIECES = [b"[", b"]\n", b'"', b" = ", b"inf", b"{"]
TARGET_FILES = sorted(data_folder("targets").rglob("*.toml"))


@FUZZ
@given(data=st.data())
def test_changed_records(data):
    document = changed(data, data.draw(st.sampled_from(RECORDS)))
    try:
        assert from_json(json.dumps(document))
    except RecordError as error:
        assert str(error).isprintable()


@FUZZ
@given(content=st.binary(max_size=200) | PLAIN.map(lambda value: json.dumps(value).encode()))
def test_random_records(content, tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(content + b"\n")
    try:
        read_lines(path)
    except RecordError as error:
        assert str(error).isprintable() and "records.jsonl, line" in str(error)


@FUZZ
@given(data=st.data())
def test_changed_target_files(data, tmp_path):
    content = bytearray(data.draw(st.sampled_from(TARGET_FILES)).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        new = data.draw(st.binary(max_size=6) | st.sampled_from(PIECES))
        content[place : place + data.draw(st.integers(0, 6))] = new
    path = tmp_path / "board.toml"
    path.write_bytes(content)
    try:
        load_target(path)
    except TargetError as error:
        assert str(error).isprintable() and "board.toml" in str(error)


@FUZZ
@given(data=st.data())
def test_changed_checkpoints(data, tmp_path):
    array = {"dtype": "uint8", "shape": [2], "data": "AAE="}
    good = {"version": 1, "key": "k", "steps": {"a": 0.5, "b": {"error": 0.1, "codes": array}}}
    path = tmp_path / "run.json"
    path.write_text(json.dumps(changed(data, good)))
    try:
        Checkpoint(path, "k")
    except BitencError as error:
        assert str(error).isprintable() and "run.json" in str(error)


DESCRIPTION = {
    "format": 2, "tvm": library.tvm.__version__,
    "target": {"name": "x", "architecture": "x86_64", "instructions": ["avx2"],
               "tvm": {"kind": "llvm", "keys": ["cpu"], "mcpu": "haswell",
               "mtriple": "x86_64-linux-gnu", "mattr": ["+avx2"]}, "threads": 1,
               "accelerator": {"channels": 8}, "simulator": "functional"},
    "inputs": [{"name": "x", "shape": ["batch", 3], "dtype": "float32"}],
    "outputs": [{"name": "y", "shape": ["batch * 2", 3], "dtype": "float32"}],
    "largest_batch": 9,
    "network": {"arena": {"fixed": 64, "per_sample": 128}, "steps": ["conv"],
                "outputs": [[{"fixed": 0, "per_sample": 2}, {"fixed": 3, "per_sample": 0}]]},
    "report": {
        "target": "x", "float_layers": [{"name": "a", "reason": "b", "cure": "c", "macs": 1}],
        "layers": [{"name": "a", "shape": "s", "weight_bits": 1, "act_bits": 2, "out_bits": 32,
                    "strategy": "lut", "macs": 5, "float_bytes": 6, "stored_bytes": 7}],
        "float_ops": [{"op": "add", "count": 1, "layers": ["a"]}], "notes": ["n"],
        "edges": [[0, -1]],
    },
}  # fmt: skip


def sealed(path: Path, content: bytes) -> Path:
    path.write_bytes(b"\x7fELF no library")
    append_sealed(path, content)
    return path


def test_the_description_is_good(tmp_path):
    found = library.read_library(sealed(tmp_path / "net.so", json.dumps(DESCRIPTION).encode()))
    assert found.target.accelerator.channels == 8 and found.largest_batch == 9
    assert found.inputs[0].shape == ("batch", 3)
    assert Report.from_dict(found.report).edges == [(0, -1)]


@FUZZ
@given(data=st.data())
def test_changed_descriptions(data, tmp_path):
    content = json.dumps(changed(data, DESCRIPTION)).encode()
    try:
        library.read_library(sealed(tmp_path / "net.so", content))
    except LibraryError as error:
        assert str(error).isprintable() and "net.so" in str(error)


@FUZZ
@given(content=st.binary(max_size=300) | PLAIN.map(lambda value: json.dumps(value).encode()))
def test_random_descriptions(content, tmp_path):
    with pytest.raises(LibraryError, match=r"net\.so"):
        library.read_library(sealed(tmp_path / "net.so", content))


@pytest.mark.parametrize(
    "content",
    [b"[" * 5000, b'{"a":' * 5000, b'{"format": 2, "format": 2}', b"{}", b"null", b"1e999",
     json.dumps({**DESCRIPTION, "target": {**DESCRIPTION["target"],
                 "tvm": {"kind": "llvm", "mtriple": "foo-bar"}}}).encode(),
     json.dumps({**DESCRIPTION, "inputs": [
         {"name": "x", "shape": [2**31 - 1, 2**31 - 1], "dtype": "float32"}]}).encode()],
    ids=range(8),
)  # fmt: skip
def test_hostile_descriptions(content, tmp_path):
    with pytest.raises(LibraryError, match=r"net\.so"):
        be.load(sealed(tmp_path / "net.so", content))


def test_a_report_survives_and_others_are_refused():
    report = Report.from_dict(DESCRIPTION["report"])
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    with pytest.raises(ValueError):
        Report.from_dict({"target": 1})
