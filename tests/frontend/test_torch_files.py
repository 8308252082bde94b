"""Exported programs in files: good ones open, and no file runs code of its own."""

import json
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import tvm_bitenc as be
from tests import archives
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.frontend.torch.expressions import check_expression
from tvm_bitenc.frontend.torch.files import load_program


class Several(nn.Module):
    """What archives may hold: buffers, views of one storage, keywords, nested results."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer("scale", torch.tensor(2.0))
        self.pair = torch.rand(6, 3)
        self.turned = self.pair[:3].T

    def forward(self, x):
        with torch.no_grad():
            y = self.layer(x) * self.scale
        y = nn.functional.gelu(y @ self.turned, approximate="tanh").clamp(-torch.inf, 1.0)
        largest, _ = torch.max(y, 1)
        return {"y": y.view(x.shape[0], -1), "others": [largest, x @ self.pair[3:]]}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return archives.good_archive(tmp_path_factory.mktemp("models") / "net.pt2")


@pytest.fixture
def changed(good, tmp_path):
    """``changed(change)``: path of an archive whose member of this name is changed."""

    def write(member: str, change) -> object:
        archive = archives.Archive(good)
        archive.change(member, change)
        return archive.write(tmp_path / "net.pt2")

    return write


@pytest.mark.parametrize("is_dynamic", [False, True])
def test_good_archives_open_and_give_the_same_numbers(is_dynamic, tmp_path):
    path, model, x = tmp_path / "net.pt2", Several().eval(), torch.rand(4, 3)
    batch = torch.export.Dim("batch", min=1, max=100)
    shapes = ({0: batch},) if is_dynamic else None
    torch.export.save(
        torch.export.export(model, (x,), dynamic_shapes=shapes), path, extra_files={"a/b": "text"}
    )
    found, expected = load_program(path).module()(x), model(x)
    assert torch.equal(found["y"], expected["y"])
    assert all(map(torch.equal, found["others"], expected["others"]))
    assert be.from_torch(load_program(path)).script()


@pytest.mark.parametrize("attack", archives.ATTACKS, ids=lambda attack: attack.__name__)
def test_no_archive_runs_code(attack, good, tmp_path, monkeypatch):
    mark = tmp_path / "ran"
    monkeypatch.syspath_prepend(tmp_path)
    archive = archives.Archive(good)
    attack(archive, str(mark))
    with pytest.raises(UnsupportedError, match=r"net\.pt2.*torch\.export\.save"):
        be.from_torch(load_program(archive.write(tmp_path / "net.pt2")))
    assert not mark.exists()


@pytest.mark.parametrize("attack", archives.IGNORED, ids=lambda attack: attack.__name__)
def test_what_is_not_needed_never_reaches_torch(attack, good, tmp_path):
    mark = tmp_path / "ran"
    archive = archives.Archive(good)
    attack(archive, str(mark))
    program = load_program(archive.write(tmp_path / "net.pt2"))
    be.from_torch(program)
    assert program.module()(torch.ones(2, 4)).shape == (2, 4)
    assert not mark.exists()


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(sizes=[{"as_int": 4}, {"as_int": 2**39}]), "has 64 bytes, not"),
        (dict(sizes=[{"as_int": 4}]), "not as many strides"),
        (dict(sizes=[{"as_int": -4}, {"as_int": 4}]), "expected `int` >= 0"),
        (dict(sizes=[{"as_int": 0}, {"as_int": 4}]), "has 64 bytes, not 0"),
        (dict(storage_offset={"as_int": 1}), "has 64 bytes, not 68"),
        (dict(dtype=99), "invalid enum value"),
        (dict(layout=1), "invalid enum value"),
        (dict(device={"type": "cuda", "index": 0}), "invalid enum value"),
    ],
)
def test_layouts_that_do_not_fit_are_named(change, message, changed):
    def meta(config: dict) -> None:
        config["config"]["0.weight"]["tensor_meta"].update(change)

    with pytest.raises(UnsupportedError, match=message) as caught:
        load_program(changed(archives.WEIGHTS, meta))
    assert "model_weights_config.json" in str(caught.value)


def test_bombs_twins_and_roots(good, tmp_path):
    path = tmp_path / "net.pt2"
    archive = archives.Archive(good)
    archive.members["data/weights/weight_9"] = bytes(1 << 24)
    with pytest.raises(UnsupportedError, match=r"weight_0' is compressed"):
        load_program(archive.write(path, zipfile.ZIP_DEFLATED))
    archive = archives.Archive(good)
    archive.write(path)
    with zipfile.ZipFile(path, "a") as twin, pytest.warns(UserWarning, match="Duplicate"):
        twin.writestr("net/models/model.json", b"{}")
    with pytest.raises(UnsupportedError, match=r"models/model\.json' is there twice"):
        load_program(path)
    archive.write(path)
    with zipfile.ZipFile(path, "a") as other:
        other.writestr("other/models/model.json", b"{}")
    with pytest.raises(UnsupportedError, match=r"other/models/model\.json' is nothing that"):
        load_program(path)


@pytest.mark.parametrize("name, content", [("archive_version", b"1"), ("byteorder", b"big")])
def test_other_versions_are_named(name, content, good, tmp_path):
    archive = archives.Archive(good)
    archive.members[name] = content
    with pytest.raises(UnsupportedError, match=rf"its {name} is b'{content.decode()}'"):
        load_program(archive.write(tmp_path / "net.pt2"))


@pytest.mark.parametrize("content", [b"[" * 5000, b'{"graph_module":' * 5000, b"{}", b"\xff"])
def test_graphs_that_are_no_graphs(content, good, tmp_path):
    archive = archives.Archive(good)
    archive.members[archives.PROGRAM] = content
    with pytest.raises(UnsupportedError, match=r"models/model\.json"):
        load_program(archive.write(tmp_path / "net.pt2"))


def test_files_that_are_no_archives(tmp_path):
    path = tmp_path / "net.pt2"
    for content in (b"", b"PK\x03\x04", b"\x80\x02.", bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(UnsupportedError, match="isn't an exported program"):
            load_program(path)
    with pytest.raises(UnsupportedError, match="No such file"):
        load_program(tmp_path / "missing.pt2")


@pytest.mark.parametrize(
    "text, is_good",
    [
        ("Symbol('s77', positive=True, integer=True)", True),
        ("Mul(Integer(2), Symbol('s0', integer=True))", True),
        ("FloorDiv(Symbol('s0'), Integer(2))", True),
        ("GreaterThan(Symbol('u0'), Integer(-1))", True),
        ("Symbol('s0').func", False),
        ("Symbol.func", False),
        ("Symbol(eval)", False),
        ("Symbol('a b')", False),
        ("Symbol(*[1])", False),
        ("Symbol(**{'x': 1})", False),
        ("Pow(Integer(9), Integer(999999999))", False),
        ("Integer(" * 500 + "1" + ")" * 500, False),
        ("lambda: 0", False),
        ("9**9**9", False),
        ("[s for s in 'a']", False),
        ("__import__('os')", False),
        ("", False),
        ("\x00", False),
    ],
)
def test_expressions_are_of_sizes_alone(text, is_good):
    if is_good:
        check_expression(text)
    else:
        with pytest.raises(ValueError, match="isn't an expression of sizes"):
            check_expression(text)


WRONG = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.text(max_size=9),
    st.just([]), st.just({}), st.just("x = __import__('os')"), st.just([[[]]]),
)  # fmt: skip


def _places(value, found: list) -> list:
    """All containers of a document with each of their keys."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        found.append((value, key))
        if isinstance(part, (dict, list)):
            _places(part, found)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), member=st.sampled_from([archives.PROGRAM, archives.WEIGHTS]))
def test_changed_documents_open_or_are_refused(data, member, good, tmp_path):
    """Whatever one place of a good archive is changed to: a model, or one error of ours."""
    archive = archives.Archive(good)
    content = json.loads(archive.members[member])
    container, key = data.draw(st.sampled_from(_places(content, [])))
    container[key] = data.draw(WRONG)
    archive.members[member] = json.dumps(content).encode()
    try:
        be.from_torch(load_program(archive.write(tmp_path / "net.pt2")))
    except UnsupportedError as error:
        assert "\n" not in str(error)
