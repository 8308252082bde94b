"""One run of post-training quantization: calibrate, choose bits, quantize, compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tvm
from torch import Tensor

from ...encoding import Encoding
from ...errors import BitencError
from .checkpoint import Checkpoint, hash_of, pack_array, unpack_array
from .grids import Histogram, act_encoding, weight_encoding
from .layer import Layer, QuantizedLayer, weight_bytes
from .progress import Progress
from .report import FLOAT_BYTES, ErrorMeter, QuantizationReport, QuantizedRow
from .rounding import learns_codes, quantize_layer
from .search import BitSearch
from .settings import Bits, Budget, Settings
from .steps import Step, first_layers, gates, last_layers

if TYPE_CHECKING:
    from torch import nn

    from .onnx_model import OnnxModel
    from .torch_model import TorchModel

GATE = "it only scales channels (squeeze-and-excite), which is little work and costs accuracy"


class Run:
    """Steps of a run; results of the long ones come from the checkpoint where it has them.

    Parameters
    ----------
    model : TorchModel or OnnxModel
    settings : Settings
    progress : callable
    checkpoint : path or None
    """

    def __init__(
        self,
        model: TorchModel | OnnxModel,
        settings: Settings,
        progress: Progress,
        checkpoint: str | Path | None,
    ):
        self.model, self.settings, self.progress = model, settings, progress
        self.layers, self.float_layers = self._selected()
        key = hash_of([model.key(), settings.rounding, str(settings.seed), *settings.skip])
        self.checkpoint = Checkpoint(checkpoint, key)
        self.done, self.total = 0, 2 * len(model.batches) + len(self.layers) + 1
        self.inputs: tuple[str, list[Tensor]] = ("", [])
        # Caches of the run, not of the class, which would keep every run's model.
        self.act_grid, self.weight_grid = cache(self._make_act_grid), cache(self._make_weight_grid)

    def result(self, budget: Budget | None) -> nn.Module | tvm.IRModule:
        """Quantize, and return the model in the form of the front end, with its report."""
        with self.checkpoint:
            bits = self._given_bits() if budget is None else self._searched_bits(budget)
            quantized = {}
            for name, layer in self.layers.items():
                quantized[name] = self.quantized(layer, bits[name])
                self.advance(name)
            report = self._report(quantized)
        return self.model.result(quantized, report.to_json())

    def _selected(self) -> tuple[dict[str, Layer], list[tuple[str, str]]]:
        """Layers to quantize by name, and those left in float with the reason."""
        model, left = self.model, list(self.model.float_layers)
        gating = gates(model.steps, model.shapes)
        layers = {}
        for layer in model.layers:
            if self.settings.is_skipped(layer.name):
                left.append((layer.name, "skipped on request"))
            elif layer.name in gating:
                left.append((layer.name, GATE))
            else:
                layers[layer.name] = layer
        unknown = sorted(set(self.settings.named_bits) - set(layers))
        if unknown:
            raise BitencError(
                f"quantize: bits of layers {unknown}",
                "there are no such layers to quantize",
                f"The layers are {', '.join(layers)}",
            )
        if not layers:
            raise BitencError(
                "quantize",
                f"there is no layer to quantize (left in float: {left})",
                "Give a network with convolutions or dense layers",
            )
        return layers, left

    def _given_bits(self) -> dict[str, Bits]:
        every, edge = dict.fromkeys(self.layers, self.settings.bits), self.settings.first_last_bits
        edges = {} if edge is None else dict.fromkeys(self._edge_layers, (edge, edge))
        return {**every, **edges, **self.settings.named_bits}

    @cached_property
    def _edge_layers(self) -> set[str]:
        if self.settings.first_last_bits is None:
            return set()
        return first_layers(self._steps, self.model.inputs) | self.last_layers

    @cached_property
    def last_layers(self) -> set[str]:
        """Quantized layers that no other one comes after."""
        return last_layers(self._steps, self.model.outputs)

    @cached_property
    def _steps(self) -> list[Step]:
        """Steps of the network, in which layers that stay float are like any other op."""
        return [s if s.layer in self.layers else replace(s, layer="") for s in self.model.steps]

    def advance(self, description: str) -> None:
        """Count a step as done."""
        self.done += 1
        self.progress(self.done, self.total, description)

    @cached_property
    def _histograms(self) -> dict[str, Histogram]:
        """Values of every layer's input."""
        names = list(dict.fromkeys(layer.input for layer in self.layers.values()))
        lows, highs = (dict.fromkeys(names, limit) for limit in (np.inf, -np.inf))
        for values in self.model.values(names):
            for name in names:
                low, high = float(values[name].min()), float(values[name].max())
                if not np.isfinite([low, high]).all():
                    raise BitencError(
                        f"tensor {name!r}", "has NaN or infinity", "Check the float network"
                    )
                lows[name], highs[name] = min(lows[name], low), max(highs[name], high)
            self.advance("ranges")
        histograms = {name: Histogram(lows[name], highs[name]) for name in names}
        for values in self.model.values(names):
            for name, histogram in histograms.items():
                histogram.add(values[name].numpy())
            self.advance("histograms")
        return histograms

    def _make_act_grid(self, tensor: str, bits: int) -> Encoding:
        return act_encoding(self._histograms[tensor], bits)

    def _make_weight_grid(self, name: str, bits: int) -> Encoding:
        return weight_encoding(self.layers[name].weight, bits, name)

    def _inputs_of(self, layer: Layer) -> list[Tensor]:
        """Float inputs of a layer, those of the latest layer kept."""
        if self.inputs[0] != layer.input:
            found = [values[layer.input] for values in self.model.values([layer.input])]
            self.inputs = (layer.input, found)
        return self.inputs[1]

    def quantized(self, layer: Layer, bits: Bits, rounding: str = "") -> QuantizedLayer:
        """Quantize a layer; bias and, of AdaRound, codes are kept in the checkpoint."""
        rounding = rounding or self.settings.rounding
        act, weight = self.act_grid(layer.input, bits[1]), self.weight_grid(layer.name, bits[0])
        step = f"layer {layer.name} W{bits[0]}A{bits[1]} {rounding}"

        def compute() -> dict:
            inputs = self._inputs_of(layer)
            one = quantize_layer(layer, act, weight, inputs, rounding, self.settings.seed)
            kept: dict[str, object] = {"error": one.error}
            if one.bias is not None:
                kept["bias"] = pack_array(one.bias)
            if learns_codes(bits[0], rounding):
                kept["codes"] = pack_array(one.codes)
            return kept

        kept = self.checkpoint.get(step, compute, dict)
        bias, codes = None, weight.quantize(layer.weight)
        if "bias" in kept:
            bias = unpack_array(kept["bias"], "float32", (layer.out_channels,))
        if "codes" in kept:
            codes = unpack_array(kept["codes"], "uint8", layer.weight.shape)
        return QuantizedLayer(layer, act, weight, codes, bias, float(kept.get("error", 0)))

    def _searched_bits(self, budget: Budget) -> dict[str, Bits]:
        given, named = self._given_bits(), self.settings.named_bits
        fixed = {n: b for n, b in given.items() if n in self._edge_layers or n in named}
        return BitSearch(self, budget, fixed).bits()

    def _report(self, quantized: Mapping[str, QuantizedLayer]) -> QuantizationReport:
        """Compare every layer's output, and the network's, with the float network's."""
        outputs = self.model.outputs
        names = list(dict.fromkeys([*(one.layer.output for one in quantized.values()), *outputs]))
        meter = ErrorMeter()
        for floats, values in zip(self.model.values(names), self.model.values(names, quantized)):
            meter.add(floats, values, names)
        self.advance("report")
        rows = [
            QuantizedRow(
                name,
                one.layer.kind,
                one.weight.bits,
                one.act.bits,
                FLOAT_BYTES * one.layer.weight.size,
                weight_bytes(one.layer, one.weight.bits),
                one.error,
                meter.error(one.layer.output),
            )
            for name, one in quantized.items()
        ]
        return QuantizationReport(rows, self.float_layers, meter.mean(outputs))
