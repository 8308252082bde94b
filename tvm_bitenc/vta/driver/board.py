"""What a `Device` needs of a board."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Memory(Protocol):
    """Memory that processor and accelerator share.

    Parameters
    ----------
    address : int
        Where it lies for the accelerator, in bytes, a multiple of 8.
    words : ndarray of uint64
    """

    @property
    def address(self) -> int: ...  # noqa: D102

    @property
    def words(self) -> np.ndarray: ...  # noqa: D102

    def to_device(self) -> None:
        """Let the accelerator see what the processor wrote."""

    def to_host(self) -> None:
        """Let the processor see what the accelerator wrote."""


class Board(Protocol):
    """Registers, memory and interrupt of an accelerator."""

    def read(self, offset: int) -> int:
        """32 bits of the register at an offset in bytes."""

    def write(self, offset: int, value: int) -> None:
        """Write 32 bits to the register at an offset in bytes."""

    def memory(self, words: int) -> Memory:
        """So many words at least; those of the call before are given up.

        Raises
        ------
        AcceleratorError
            If the board hasn't as many.
        """

    def wait(self, seconds: float) -> None:
        """Sleep until the interrupt comes, or for so long at most."""
