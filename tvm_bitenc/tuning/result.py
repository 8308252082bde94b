"""What tuning found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerResult:
    """What tuning found for one kind of layer.

    Parameters
    ----------
    name, workload : str
    count : int
        How many layers are of this kind.
    trials : int
        Those of earlier runs included.
    speedup : float
        Over the default, as compared in turns; 1 where the default stays.
    strategy : str
    gmacs : float
        GMAC/s of the best measurement.
    share_of_limit : float
        0 where the limit isn't known.
    """

    name: str
    workload: str
    count: int
    trials: int
    speedup: float
    strategy: str
    gmacs: float
    share_of_limit: float
