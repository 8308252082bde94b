"""Post-training quantization: a float network and calibration data to a quantized network."""

from .api import quantize
from .report import QuantizationReport, QuantizedRow, report_of

__all__ = ["QuantizationReport", "QuantizedRow", "quantize", "report_of"]
