"""Boards of Xilinx under PYNQ, which loads the bitstream and gives memory."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ...errors import LibraryError
from ..functional import AcceleratorError


class PynqMemory:
    """Memory of ``pynq.allocate``, which is cached."""

    def __init__(self, buffer: Any):
        self.buffer, self.address, self.words = buffer, int(buffer.device_address), buffer

    def to_device(self) -> None:
        """Let the accelerator see what the processor wrote."""
        self.buffer.flush()

    def to_host(self) -> None:
        """Let the processor see what the accelerator wrote."""
        self.buffer.invalidate()


class PynqBoard:
    """An accelerator in a bitstream that PYNQ loads.

    Parameters
    ----------
    bitstream : str
        A ``.bit`` with the ``.hwh`` of its block design beside it.
    name : str
        Of the accelerator in the block design.

    Raises
    ------
    LibraryError
        If PYNQ isn't installed, or the bitstream has no such block.
    """

    def __init__(self, bitstream: str, name: str = "vta_axi_0"):
        try:
            import pynq
        except ImportError:
            raise LibraryError(
                "PYNQ", "isn't installed", "pip install pynq, on the board"
            ) from None
        overlay = pynq.Overlay(bitstream)
        if name not in overlay.ip_dict:
            raise LibraryError(bitstream, f"has no {name}", f"Use one of {list(overlay.ip_dict)}")
        self._pynq, self._registers = pynq, getattr(overlay, name)
        self._memory: PynqMemory | None = None

    def read(self, offset: int) -> int:
        """32 bits of the register at an offset in bytes."""
        return int(self._registers.read(offset))

    def write(self, offset: int, value: int) -> None:
        """Write 32 bits to the register at an offset in bytes."""
        self._registers.write(offset, value)

    def memory(self, words: int) -> PynqMemory:
        """So many words; those of the call before are freed.

        Raises
        ------
        AcceleratorError
            If the board hasn't as many.
        """
        if self._memory is not None:
            self._memory.buffer.freebuffer()
            self._memory = None
        try:
            self._memory = PynqMemory(self._pynq.allocate((words,), dtype=np.uint64))
        except (MemoryError, RuntimeError) as error:
            cause = f"{8 * words} bytes of DMA memory: {error}"
            raise AcceleratorError("accelerator", cause, "Give the kernel a larger CMA") from None
        return self._memory

    def wait(self, seconds: float) -> None:
        """Sleep a millisecond, or so long: without the event loop PYNQ has no interrupts."""
        time.sleep(min(seconds, 0.001))
