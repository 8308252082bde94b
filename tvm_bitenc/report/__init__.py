"""What each layer became, as data, a table or a page."""

from .data import FloatLayer, FloatOps, LayerRow
from .report import Report

__all__ = ["FloatLayer", "FloatOps", "LayerRow", "Report"]
