"""From a float layer and its inputs to codes: nearest, with bias correction, or AdaRound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...encoding import Encoding, along
from ...nn.quantize_op import quantize
from .layer import Layer, QuantizedLayer

ADAROUND_STEPS = 400
ADAROUND_MOST_BITS = 6  # With more, half a step of a weight is nothing beside the activations'.
ADAROUND_PIXELS = 1 << 16  # Input elements to a step, so that its time is bounded.


def quantize_layer(
    layer: Layer,
    act: Encoding,
    weight: Encoding,
    inputs: Sequence[Tensor],
    rounding: str = "bias",
    seed: int = 0,
) -> QuantizedLayer:
    """Quantize one layer so that its own output changes little.

    Parameters
    ----------
    layer : Layer
    act, weight : Encoding
    inputs : sequence of Tensor
        The layer's float inputs, one per calibration batch.
    rounding : {"nearest", "bias", "adaround"}
        ``nearest``: every weight to its nearest level. ``bias``: the mean error that this leaves in
        each output channel is then taken from the bias (Nagel et al., "Data-Free Quantization
        Through Weight Equalization and Bias Correction", 2019, measured, not modelled).
        ``adaround``: up or down is learned first (Nagel et al., "Up or Down?", 2020), and taken
        where the error is smaller then.
    seed : int
        Of the order in which AdaRound sees the inputs.
    """
    corrects = rounding != "nearest"
    one = _with_codes(layer, act, weight, inputs, weight.quantize(layer.weight), corrects)
    if not learns_codes(weight.bits, rounding):
        return one
    codes = _adaround(layer, act, weight, inputs, seed)
    learned = _with_codes(layer, act, weight, inputs, codes, corrects)
    return min(learned, one, key=lambda quantized: quantized.error)


@torch.no_grad()
def _with_codes(
    layer: Layer,
    act: Encoding,
    weight: Encoding,
    inputs: Sequence[Tensor],
    codes: np.ndarray,
    corrects_bias: bool,
) -> QuantizedLayer:
    """Measure a layer's error with some weight codes, and take its mean from the bias."""
    levels, floats = (torch.from_numpy(w) for w in (weight.dequantize(codes), layer.weight))
    count = sum(len(x) for x in inputs)
    means, errors, powers = (torch.zeros((), dtype=torch.float64) for _ in range(3))
    for x in inputs:
        y, share = layer.apply(x, floats), len(x) / count
        difference = layer.apply(on_grid(x, act), levels) - y
        means = means + share * layer.channel_means(difference)
        errors = errors + share * layer.channel_means(difference.square())
        if layer.bias is not None:
            y = y + layer.per_channel(layer.bias)
        powers = powers + share * layer.channel_means(y.square())
    bias = layer.bias
    if corrects_bias:
        bias = (0 if bias is None else bias.astype(np.float64)) - means.numpy()
        bias, errors = bias.astype(np.float32), errors - means.square()
    error = float(errors.sum() / powers.sum().clamp_min(1e-30))
    return QuantizedLayer(layer, act, weight, codes, bias, error)


def learns_codes(weight_bits: int, rounding: str) -> bool:
    """Whether codes come from AdaRound."""
    return rounding == "adaround" and weight_bits <= ADAROUND_MOST_BITS


def on_grid(x: Tensor, act: Encoding) -> Tensor:
    """Round to the nearest level of an activation's encoding."""
    return quantize(x, float(act.scale), float(act.zero_point), act.bits)


def _adaround(
    layer: Layer, act: Encoding, weight: Encoding, inputs: Sequence[Tensor], seed: int
) -> np.ndarray:
    """Learn for every weight whether to round up or down; codes.

    A soft choice in [0, 1] per weight is trained on the layer's own output, and pushed to 0 or 1
    by a term whose exponent falls from 20 to 2, as in the paper.
    """
    scale, zero_point = (
        torch.from_numpy(np.ascontiguousarray(along(value, layer.weight.ndim, 0)))
        for value in (weight.scale, weight.zero_point)
    )
    floats, top = torch.from_numpy(layer.weight), weight.max_code
    position = floats / scale + zero_point
    below = position.floor()
    # Start where the soft choice is the weight's own fraction.
    fraction = (position - below).clamp(0.01, 0.99)
    choice = torch.logit((fraction + 0.1) / 1.2).requires_grad_()
    optimizer = torch.optim.Adam([choice], lr=1e-2)
    generator = torch.Generator().manual_seed(seed)
    for step in range(ADAROUND_STEPS):
        x = _sample(layer, inputs, generator)
        soft = (1.2 * torch.sigmoid(choice) - 0.1).clamp(0, 1)
        levels = ((below + soft).clamp(0, top) - zero_point) * scale
        with torch.no_grad():
            y = layer.apply(x, floats)
        difference = layer.without_means(layer.apply(on_grid(x, act), levels) - y)
        loss = difference.square().mean() / y.square().mean().clamp_min(1e-30)
        progress = step / ADAROUND_STEPS
        if progress > 0.2:
            exponent = 20 - 18 * (progress - 0.2) / 0.8
            loss = loss + 0.01 * (1 - (2 * soft - 1).abs().pow(exponent)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    codes = (below + (choice >= 0)).clamp(0, top)
    return codes.detach().numpy().astype(np.uint8)


def _sample(layer: Layer, inputs: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """Some examples of one batch, few enough for `ADAROUND_PIXELS`."""
    x = inputs[int(torch.randint(len(inputs), (1,), generator=generator))]
    most = max(ADAROUND_PIXELS * len(x) // x.numel(), 1)
    return x[torch.randperm(len(x), generator=generator)[:most]]
