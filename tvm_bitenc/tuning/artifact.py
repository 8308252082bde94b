"""A built candidate on the disk."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Artifact:
    """A candidate's library and constants, in a folder.

    Parameters
    ----------
    folder : str
    """

    folder: str

    @property
    def library(self) -> str:
        """Path of the shared library."""
        return os.path.join(self.folder, "kernel.so")

    @property
    def constants(self) -> list[np.ndarray]:
        """Constants in the order of the function's arguments."""
        paths = itertools.takewhile(os.path.exists, map(self.constant, itertools.count()))
        return [np.load(path, allow_pickle=False) for path in paths]

    def constant(self, number: int) -> str:
        """Path of a constant."""
        return os.path.join(self.folder, f"constant{number}.npy")
