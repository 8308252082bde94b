"""What each layer became, as data, a table or a page."""

from .report import FloatLayer, FloatOps, LayerRow, Report

__all__ = ["FloatLayer", "FloatOps", "LayerRow", "Report"]
