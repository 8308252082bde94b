"""`bits="auto"`: what each choice costs, what error it makes, and which choices fit a budget.

The error of a choice is measured on calibration data with one layer quantized and all others in
float: at what the last layers read and at what they write, for behind them a softmax may hide any
error, and a few outputs come out right by luck. Errors of layers are added up, as in ZeroQ and
HAWQ. What is chosen is measured as a whole against equal bits everywhere, and the better of the two
is taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ...branches import BranchGeometry
from ...codewords import any_codes
from ...errors import BitencError
from ...layer import ConvLayer, height_width
from ...schedule import strategy_costs
from ...target import Target, load_target
from .checkpoint import Checkpoint
from .knapsack import Choice, within_cost, within_error
from .layer import Layer, QuantizedLayer, weight_bytes
from .report import ErrorMeter
from .settings import Bits, Budget, Settings

if TYPE_CHECKING:
    from .onnx_model import OnnxModel
    from .torch_model import TorchModel

# The long search of AdaRound is for the chosen bits alone.
QUICK = {"nearest": "nearest", "bias": "bias", "adaround": "bias"}


class Measures(Protocol):
    """What a search asks of its run."""

    model: TorchModel | OnnxModel
    settings: Settings
    layers: dict[str, Layer]
    checkpoint: Checkpoint
    total: int

    @property
    def last_layers(self) -> set[str]:
        """Quantized layers that no other one comes after."""

    def quantized(self, layer: Layer, bits: Bits, rounding: str = "") -> QuantizedLayer:
        """Quantize a layer."""

    def advance(self, description: str) -> None:
        """Count a step as done."""


class BitSearch:
    """Chooses bits for the layers of a run.

    Parameters
    ----------
    run : Measures
    budget : Budget
    fixed : dict
        Bits of layers that have no choice.
    """

    def __init__(self, run: Measures, budget: Budget, fixed: Mapping[str, Bits]):
        self.run, self.budget, self.fixed = run, budget, fixed
        self.rounding = QUICK[run.settings.rounding]
        self.target = load_target(budget.target, None) if budget.kind == "latency" else None

    def bits(self) -> dict[str, Bits]:
        """Bits of every layer.

        Raises
        ------
        BitencError
            If the budget can't be met, or the target has no cost model.
        """
        names = self.run.layers
        self.run.total += sum(len(self._measured_bits(name)) for name in names)
        choices = {name: self._choices(layer) for name, layer in names.items()}
        if self.budget.kind == "error":
            chosen = within_error(choices, self.budget.amount, self._output_error)
        else:
            chosen = self._within_cost(choices)
        return {name: choice.bits for name, choice in chosen.items()}

    def _within_cost(self, choices: Mapping[str, list[Choice]]) -> dict[str, Choice]:
        """Choose by the knapsack, or equal bits everywhere where that measures better."""
        amount = self.budget.amount
        candidates = [within_cost(choices, amount)]
        for count in range(max(self.run.settings.bits), 0, -1):
            uniform = self._uniform(choices, count)
            if sum(choice.cost for choice in uniform.values()) <= amount:
                candidates.append(uniform)
                break
        return min(candidates, key=self._output_error)

    def _most(self, name: str) -> Bits:
        return self.fixed.get(name, self.run.settings.bits)

    def _options(self, name: str) -> list[Bits]:
        """Bits that a layer may have."""
        if name in self.fixed:
            return [self.fixed[name]]
        most_weight, most_act = self.run.settings.bits
        acts = range(1, most_act + 1) if self.budget.kind == "latency" else [most_act]
        return [(w, a) for w in range(1, most_weight + 1) for a in acts]

    def _measured_bits(self, name: str) -> list[Bits]:
        """Options whose error is measured; with both kinds of bits, one kind at a time."""
        most = self._most(name)
        if name in self.fixed:
            return []
        return [bits for bits in self._options(name) if bits[0] == most[0] or bits[1] == most[1]]

    def _choices(self, layer: Layer) -> list[Choice]:
        errors = {b: self._sensitivity(layer, b) for b in self._measured_bits(layer.name)}
        most_weight, most_act = most = self._most(layer.name)

        def error(bits: Bits) -> float:
            if layer.name in self.fixed:
                return 0.0
            by_weight, by_act = errors[bits[0], most_act], errors[most_weight, bits[1]]
            return max(by_weight + by_act - errors[most], 0.0)

        options = self._options(layer.name)
        return [Choice(bits, self._cost(layer, bits), error(bits)) for bits in options]

    def _sensitivity(self, layer: Layer, bits: Bits) -> float:
        """Error at the last layers with this layer alone quantized."""
        weight_bits, act_bits = bits
        step = f"sensitivity {layer.name} W{weight_bits}A{act_bits} {self.rounding}"
        error = self.run.checkpoint.get(step, lambda: self._error_with({layer.name: bits}), float)
        self.run.advance(f"{layer.name} at W{weight_bits}A{act_bits}")
        return error

    def _error_with(self, bits: Mapping[str, Bits]) -> float:
        """Error at the last layers with some layers quantized."""
        meter = self._measured(bits)
        return meter.mean(self._seen) + meter.mean(self._made)

    def _output_error(self, chosen: Mapping[str, Choice]) -> float:
        """Error of the network's outputs, or of the last layers' if that is larger."""
        meter = self._measured({name: choice.bits for name, choice in chosen.items()})
        return max(meter.mean(self.run.model.outputs), meter.mean(self._made))

    def _measured(self, bits: Mapping[str, Bits]) -> ErrorMeter:
        run, meter = self.run, ErrorMeter()
        quantized = {n: run.quantized(run.layers[n], b, self.rounding) for n, b in bits.items()}
        for floats, values in zip(self._floats, run.model.values(self._tensors, quantized)):
            meter.add(floats, values, self._tensors)
        return meter

    @cached_property
    def _seen(self) -> list[str]:
        """Tensors that the last layers read."""
        return sorted({self.run.layers[name].input for name in self.run.last_layers})

    @cached_property
    def _made(self) -> list[str]:
        """Tensors that the last layers write."""
        return sorted(self.run.layers[name].output for name in self.run.last_layers)

    @cached_property
    def _tensors(self) -> list[str]:
        return list(dict.fromkeys([*self._seen, *self._made, *self.run.model.outputs]))

    @cached_property
    def _floats(self) -> list[dict]:
        return list(self.run.model.values(self._tensors))

    def _uniform(self, choices: Mapping[str, list[Choice]], count: int) -> dict[str, Choice]:
        """Equal bits for all layers that have a choice, within their most."""

        def nearest(name: str, options: list[Choice]) -> Choice:
            wanted = tuple(min(count, most) for most in self._most(name))
            if self.budget.kind != "latency":
                wanted = (wanted[0], self._most(name)[1])
            return next((c for c in options if c.bits == wanted), options[0])

        return {name: nearest(name, options) for name, options in choices.items()}

    def _cost(self, layer: Layer, bits: Bits) -> float:
        """Bytes, or the share of what all layers cost with their most bits."""
        if self.target is None:
            return weight_bytes(layer, bits[0])
        return self._predicted(layer, bits) / self._most_predicted

    def _predicted(self, layer: Layer, bits: Bits) -> float:
        assert self.target is not None  # Only latency is predicted.
        return predicted_cost(layer, self.run.model.shapes[layer.input], bits, self.target)

    @cached_property
    def _most_predicted(self) -> float:
        return sum(self._predicted(layer, self._most(n)) for n, layer in self.run.layers.items())


def predicted_cost(layer: Layer, input_shape: tuple[int, ...], bits: Bits, target: Target) -> float:
    """Cost of a layer by the target's cost model, in the model's own unit."""
    costs = strategy_costs(_as_conv_layer(layer, input_shape, bits), target)
    if not costs:
        raise BitencError(
            f"target {target.name!r}",
            "has no cost model for latency",
            "Give a budget of weight_bytes= or error=, or another target",
        )
    return min(costs.values())


def _as_conv_layer(layer: Layer, input_shape: tuple[int, ...], bits: Bits) -> ConvLayer:
    """Layer as cost models know them: a 2-d convolution of as many products."""
    if layer.is_dense:
        batch, channels, *spatial = math.prod(input_shape[:-1]), input_shape[-1]
    else:
        batch, channels, *spatial = input_shape
    kernel = _two(layer.weight.shape[2:], 1)
    strides, dilation = _two(layer.strides, 1), _two(layer.dilation, 1)
    before, after = (_two(pads, 0) for pads in layer.pads)
    if layer.is_transposed:  # Every input pixel meets every tap.
        strides, before = (1, 1), (0, 0)
        after = height_width(d * (k - 1) for d, k in zip(dilation, kernel))
    weight_bits, act_bits = bits
    geometry = BranchGeometry(
        tuple(2**k for k in range(act_bits)),
        tuple(2**m for m in range(weight_bits)),
        0,
        strides,
        (*before, *after),
        dilation,
        layer.groups,
    )
    return ConvLayer(
        layer.name,
        (batch, *_two(spatial, 1), channels),
        any_codes((*layer.weight.shape[:2], *kernel), weight_bits),
        np.zeros(layer.out_channels, np.int32),
        geometry,
    )


def _two(values: Sequence[int], fill: int) -> tuple[int, int]:
    """Numbers of two axes, of which the last may be missing."""
    return height_width((*values, fill, fill)[:2])
