"""The names of kernel strategies: how a layer's branch sum is computed."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import UnsupportedError

STRATEGIES = ("xnor", "lut", "int8")  # Those that compute every layer, on every target.
CODEBOOK = "codebook"  # For layers of few kernels alone, where vectors look up bytes.
ALL_STRATEGIES = (*STRATEGIES, CODEBOOK)
AUTO = "auto"  # By tuned records, or else by the cost model.
BY_RULES = "default"  # In trials of tuning: whatever the rules choose by themselves.
OTHERS = "*"  # Key of all layers that a mapping doesn't name.


def by_layer(strategy: str | Mapping[str, str]) -> dict[str, str]:
    """Return strategies by layer name, `OTHERS` standing for all that aren't named.

    Parameters
    ----------
    strategy : str or mapping
        ``"auto"`` or one of `ALL_STRATEGIES`, for all layers or by name.

    Raises
    ------
    UnsupportedError
        For an unknown strategy.
    """
    chosen = {OTHERS: strategy} if isinstance(strategy, str) else {OTHERS: AUTO, **strategy}
    for name in chosen.values():
        if name not in (AUTO, *ALL_STRATEGIES):
            raise UnsupportedError(
                f"strategy {name!r}", "isn't known", f"Use {AUTO!r} or one of {ALL_STRATEGIES}"
            )
    return chosen
