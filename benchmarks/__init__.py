"""Measurements side by side with ONNX Runtime and torch: `python -m benchmarks.layers -h`."""
