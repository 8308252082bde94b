"""What each layer became, as a table, a page or a dictionary; and why, without compiling."""

from .explain import Observer, explain
from .report import FloatLayer, FloatOps, LayerRow, Report

__all__ = ["FloatLayer", "FloatOps", "LayerRow", "Observer", "Report", "explain"]
