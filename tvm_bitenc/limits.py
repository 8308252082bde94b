"""How fast a layer could be here: what the instructions of a core allow, times its clock."""

from __future__ import annotations

from tvm.target import codegen

from .schedule import best_macs
from .target import Target


def limits(
    target: Target, weight_bits: int, act_bits: int, clock_ghz: float, threads: int = 1
) -> dict[str, float]:
    """GMAC/s that each strategy can reach at best on this machine.

    Parameters
    ----------
    target : Target
        What code was compiled for.
    weight_bits, act_bits : int
    clock_ghz : float
        As `rates.clock_ghz` measures it.
    threads : int

    Returns
    -------
    dict of str to float
        Empty unless the target is this machine's CPU and the rates of its core are known.
    """
    if not target.core.source or target.cpu != codegen.llvm_get_system_cpu():
        return {}
    found = best_macs(target, weight_bits, act_bits)
    return {name: macs * clock_ghz * threads for name, macs in found.items()}
