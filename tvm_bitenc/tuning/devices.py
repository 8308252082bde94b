"""Where candidates are measured, from the text that users give."""

from __future__ import annotations

from ..host import check_runs_here
from ..target import Target
from .farm import Farm, parse_address
from .runner import Device, LocalDevice


def device_for(runner: str | None, target: Target, timeout: float) -> Device:
    """Return the devices behind a tracker, or this machine.

    Parameters
    ----------
    runner : str or None
        ``"rpc://host:port/key"``, or None for this machine.
    target : Target
    timeout : float
        Seconds that a candidate may take.

    Raises
    ------
    TargetError
        If this machine can't run code for the target.
    FarmError
        If the address is malformed, or no tracker answers there.
    """
    if runner is not None:
        return Farm(parse_address(runner), timeout)
    check_runs_here(target)
    return LocalDevice(timeout, target.threads)
