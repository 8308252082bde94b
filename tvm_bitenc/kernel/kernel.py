"""A kernel: a function, and the constants that it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tvm import tirx


@dataclass(frozen=True)
class Kernel:
    """A scheduled function for one call.

    Parameters
    ----------
    function : tirx.PrimFunc
        Takes the call's tensor inputs, then `constants`, then the output.
    constants : sequence of ndarray
        Weights and the like, laid out as the function reads them.
    """

    function: tirx.PrimFunc
    constants: Sequence[np.ndarray] = ()
