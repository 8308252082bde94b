"""Drivers of an accelerator in hardware: one `Device` over several kinds of boards."""

from .board import Board, Memory
from .device import Device
from .pynq import PynqBoard
from .uio import UioBoard

__all__ = ["Board", "Device", "Memory", "PynqBoard", "UioBoard"]
