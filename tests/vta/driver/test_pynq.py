"""PYNQ with a module that stands for it."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from tvm_bitenc.errors import LibraryError
from tvm_bitenc.vta.driver import PynqBoard
from tvm_bitenc.vta.functional import AcceleratorError


class Buffer(np.ndarray):
    """What ``pynq.allocate`` returns; `events` says what was done to it."""

    device_address = 0x16800000


@pytest.fixture
def pynq(monkeypatch):
    """A module, whose list `events` has what was called."""
    module, registers = ModuleType("pynq"), {}
    module.events = events = []

    def allocate(shape, dtype):
        if shape[0] > 1000:
            raise RuntimeError("Failed to allocate Memory!")
        buffer = np.zeros(shape, dtype).view(Buffer)
        for name in ("flush", "invalidate", "freebuffer"):
            setattr(buffer, name, lambda name=name: events.append(name))
        return buffer

    block = SimpleNamespace(read=lambda x: registers.get(x, 0), write=registers.__setitem__)
    module.allocate = allocate
    module.Overlay = lambda path: SimpleNamespace(ip_dict={"vta_axi_0": {}}, vta_axi_0=block)
    monkeypatch.setitem(sys.modules, "pynq", module)
    return module


def test_registers_and_memory(pynq):
    board = PynqBoard("vta.bit")
    board.write(0x88, 8)
    assert board.read(0x88) == 8 and board.read(0x80) == 0
    memory = board.memory(10)
    assert memory.address == 0x16800000 and memory.words.dtype == np.uint64
    memory.to_device()
    memory.to_host()
    board.memory(20)
    assert pynq.events == ["flush", "invalidate", "freebuffer"]
    board.wait(0.0)


def test_what_is_missing_is_named(pynq, monkeypatch):
    with pytest.raises(LibraryError, match=r"has no vta.* Use one of \['vta_axi_0'\]"):
        PynqBoard("vta.bit", "vta")
    with pytest.raises(AcceleratorError, match="larger CMA"):
        PynqBoard("vta.bit").memory(2000)
    monkeypatch.setitem(sys.modules, "pynq", None)
    with pytest.raises(LibraryError, match="pip install pynq"):
        PynqBoard("vta.bit")
