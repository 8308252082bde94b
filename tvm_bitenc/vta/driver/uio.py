"""Any Linux board: registers and interrupt by UIO, memory by u-dma-buf."""

from __future__ import annotations

import mmap
import os
import select
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...encoding import WORD_BITS
from ...errors import LibraryError
from ..functional import AcceleratorError

_REGISTER_BYTES = 4096


@dataclass(frozen=True, eq=False)
class UioMemory:
    """Part of a u-dma-buf, which caches keep out of."""

    address: int
    words: np.ndarray

    def to_device(self) -> None:
        """Nothing is cached."""

    def to_host(self) -> None:
        """Nothing is cached."""


class UioBoard:
    """An accelerator whose registers are a UIO device.

    Parameters
    ----------
    device : str
        Such as ``/dev/uio0``; its first map are the registers.
    buffer : str
        Such as ``/dev/udmabuf0``, of https://github.com/ikwzm/udmabuf.
    folder : str
        Where the kernel describes buffers.

    Raises
    ------
    LibraryError
        If there is no such device, or it isn't allowed.
    """

    def __init__(
        self,
        device: str = "/dev/uio0",
        buffer: str = "/dev/udmabuf0",
        folder: str = "/sys/class/u-dma-buf",
    ):
        self._device, registers = _mapped(device, _REGISTER_BYTES, "Give vta_axi a UIO node")
        about = Path(folder) / Path(buffer).name
        cure = "Load u-dma-buf, which makes it"
        try:
            # Written by the kernel as 0x1f400000, and as a decimal number.
            self._address = int((about / "phys_addr").read_text(), 0)
            size = int((about / "size").read_text(), 0)
        except OSError as error:
            raise LibraryError(buffer, str(error), cure) from None
        # Opened with O_SYNC, the buffer isn't cached.
        self._buffer, memory = _mapped(buffer, size, cure)
        self._registers = np.frombuffer(registers, np.uint32)
        self._words = np.frombuffer(memory, np.uint64)

    def read(self, offset: int) -> int:
        """32 bits of the register at an offset in bytes."""
        return int(self._registers[offset // 4])

    def write(self, offset: int, value: int) -> None:
        """Write 32 bits to the register at an offset in bytes."""
        self._registers[offset // 4] = value

    def memory(self, words: int) -> UioMemory:
        """So many words from the start of the buffer.

        Raises
        ------
        AcceleratorError
            If the buffer is smaller.
        """
        if words > self._words.size:
            size = words * WORD_BITS // 8
            cause = f"a program needs {size} bytes of DMA memory, of {self._words.nbytes}"
            raise AcceleratorError("accelerator", cause, f"Load u-dma-buf with udmabuf0={size}")
        return UioMemory(self._address, self._words[:words])

    def wait(self, seconds: float) -> None:
        """Sleep until the interrupt comes, or for so long at most."""
        os.write(self._device, (1).to_bytes(4, "little"))  # The kernel lets one through.
        if select.select([self._device], [], [], seconds)[0]:
            os.read(self._device, 4)


def _mapped(path: str, size: int, cure: str) -> tuple[int, mmap.mmap]:
    """An open file and its first bytes, shared."""
    try:
        file = os.open(path, os.O_RDWR | os.O_SYNC)
        return file, mmap.mmap(file, size)
    except (OSError, ValueError) as error:
        raise LibraryError(path, str(error), cure) from None
