"""Whatever file a command is given: one line that begins with ``bitenc:``, and no traceback."""

import json

import numpy as np
import pytest

from tvm_bitenc.deploy import sealed

pytest.importorskip("typer", reason="pip install 'tvm-bitenc[cli]'")

ZEROS = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }"


def npy(header: str, data: bytes = b"") -> bytes:
    """A .npy file of a header as it is given."""
    text = header.encode() + b" " * (-len(header) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


@pytest.fixture
def said(bitenc, tmp_path):
    """``said(content, name, *arguments)``: what a command says of a file; ``FILE`` is its path."""

    def run(content: bytes, name: str, *arguments):
        path = tmp_path / name
        path.write_bytes(content)
        code, printed = bitenc(*(path if a == "FILE" else a for a in arguments))
        assert isinstance(code, str) and code.startswith("bitenc: ")
        assert code.isprintable() and "Traceback" not in printed.err + printed.out
        return code

    return run


@pytest.mark.parametrize(
    "content", [b"x = " + b"[" * 5000, b"a." * 5000, b"\xff", b"[tvm]\nmtriple = 'foo-bar'\n"]
)
def test_targets(content, said):
    assert "board.toml" in said(content, "board.toml", "targets", "FILE")


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"{}", b"BITENC01" * 9, bytes(1000)])
def test_libraries(content, said):
    for command in ("run", "report", "bench", "deploy"):
        assert "net.so" in said(content, "net.so", command, "FILE")


@pytest.mark.parametrize("description", [b"[" * 5000, b"{}", b'{"format": 2}', b"null"])
def test_sealed_descriptions(description, said, tmp_path):
    path = tmp_path / "sealed.so"
    path.write_bytes(b"\x7fELF")
    sealed.append_sealed(path, description)
    assert "net.so" in said(path.read_bytes(), "net.so", "run", "FILE")


@pytest.mark.parametrize("content", [b"[" * 5000 + b"\n", b"\x80\x04.\n", b"{}\n", b'"\xff"\n'])
def test_records(content, said, tmp_path):
    assert "line 1" in said(
        content, "tuned.jsonl", "tune", "merge", "FILE", "-o", tmp_path / "all.jsonl"
    )
    assert "line 1" in said(content, "tuned.jsonl", "tune", "verify", "FILE")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04.",
        npy(ZEROS % "1000000, 1000000,"),
        npy(ZEROS % "-1,"),
        npy(ZEROS % "2,", bytes(4)),
        npy(ZEROS.replace("<f4", "|O") % "1,", b"\x80\x04."),
        npy("(" * 5000),
        npy("[" * 90),
        npy("__import__('os')"),
        b"PK\x03\x04 no archive",
    ],
    ids=range(10),
)
def test_arrays(content, said, module_of, tmp_path):
    from tvm import relax

    import tvm_bitenc as be

    mod = module_of([(2, 3)], lambda b, x: b.emit(relax.op.add(x, x)))
    path = be.build(mod, threads=1).export_library(tmp_path / "net.so")
    assert "isn't an array" in said(content, "x.npy", "run", path, "--input", "FILE")


def test_archives_of_arrays_are_no_array(said, tmp_path):
    from tvm_bitenc.cli.libraries import read_array
    from tvm_bitenc.errors import BitencError

    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(BitencError, match="isn't an array"):
        read_array(tmp_path / "x.npz")
    np.save(tmp_path / "x.npy", np.arange(6).reshape(2, 3))
    assert np.array_equal(read_array(tmp_path / "x.npy"), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("name", ["net.pt2", "net.onnx"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02.", bytes(100)])
def test_models(name, content, said):
    for command in ("explain", "compile", "run"):
        assert name in said(content, name, command, "FILE")


def test_descriptions_to_seal(tmp_path):
    from tvm_bitenc.deploy.seal import main
    from tvm_bitenc.errors import LibraryError

    path, code = tmp_path / "net.json", tmp_path / "net.so"
    code.write_bytes(b"\x7fELF")
    for content in ("[" * 5000, "{}", json.dumps({"format": 1}), "\ud800x"):
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
        with pytest.raises(LibraryError, match="net.json"):
            main([str(code), str(path)])
    assert code.read_bytes() == b"\x7fELF"
