"""UIO on files that stand for its devices."""

import numpy as np
import pytest

from tvm_bitenc.errors import LibraryError
from tvm_bitenc.vta.driver import UioBoard
from tvm_bitenc.vta.functional import AcceleratorError


@pytest.fixture
def files(tmp_path):
    """Paths of a device, a buffer of 64 words at 0x1f400000, and what the kernel says of it."""
    (tmp_path / "uio0").write_bytes(np.arange(1024, dtype=np.uint32).tobytes())
    (tmp_path / "udmabuf0").write_bytes(bytes(512))
    about = tmp_path / "class" / "udmabuf0"
    about.mkdir(parents=True)
    (about / "phys_addr").write_text("0x1f400000\n")
    (about / "size").write_text("512\n")
    return tuple(str(tmp_path / name) for name in ("uio0", "udmabuf0", "class"))


def test_registers_are_words_of_the_device(files):
    board = UioBoard(*files)
    assert board.read(0x84) == 0x84 // 4
    board.write(0x88, 0xFFFFFFF8)
    with open(files[0], "rb") as file:
        assert np.frombuffer(file.read(), np.uint32)[0x88 // 4] == 0xFFFFFFF8
    board.wait(0.01)


def test_memory_is_the_buffer(files):
    memory = UioBoard(*files).memory(16)
    assert memory.address == 0x1F400000 and memory.words.size == 16
    memory.words[3] = 2**64 - 1
    memory.to_device()
    memory.to_host()
    with open(files[1], "rb") as file:
        assert np.frombuffer(file.read(), np.uint64)[3] == 2**64 - 1


def test_a_small_buffer_is_refused(files):
    with pytest.raises(AcceleratorError, match=r"needs 800 bytes of DMA memory, of 512"):
        UioBoard(*files).memory(100)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_what_is_missing_is_named(files, missing):
    paths = [f"{path}x" if i == missing else path for i, path in enumerate(files)]
    with pytest.raises(LibraryError, match="Give vta_axi a UIO node" if not missing else "Load u-"):
        UioBoard(*paths)
