"""What each layer became, as a table, a page or a dictionary."""

from .report import FloatLayer, LayerRow, Report, report_of

__all__ = ["FloatLayer", "LayerRow", "Report", "report_of"]
