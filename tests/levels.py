"""Layers whose tensors have levels at any distances, and the integers that they give."""

import numpy as np
from tvm import relax

from tvm_bitenc import reference
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.levels import encoding_of_levels
from tvm_bitenc.op import quantize

f32 = np.float32


def random_encoding(rng):
    """Random levels, bounds around 0, and a zero point among the levels or half way."""
    count = rng.integers(2, 10)
    levels = [0, *np.cumsum(rng.integers(1, 21, count - 1)).tolist()]
    bounds = np.sort(rng.choice(np.arange(-16, 17), count - 1, replace=False)).astype(f32) / 8
    bounds[::2] = np.nextafter(bounds[::2], f32(9))  # As of x > 0: the least number above.
    zero_point = rng.choice(levels) + rng.choice([0, 0, 0.5])
    return encoding_of_levels(levels, bounds.tolist(), 2.0 ** rng.integers(-3, 2), zero_point)


class Chain:
    """Two convolutions of levels, the first of which ends in the codes of the second."""

    def __init__(self, seed, name="", act=None):
        rng, self.name = np.random.default_rng(seed), name
        self.acts = [act or random_encoding(rng) for _ in range(2)]
        self.weights = [random_encoding(rng) for _ in range(2)]
        channels = [int(rng.choice([3, 16, 17, 64])), int(rng.choice([8, 16, 33])), 8]
        self.codes = [
            rng.choice(np.array(weight.codes, np.uint8), (after, before, 3, 3))
            for weight, before, after in zip(self.weights, channels, channels[1:])
        ]
        self.x = (rng.integers(-20, 21, (2, channels[0], 5, 6)) / 8).astype(f32)
        sums = reference.conv2d(*self._operands(0, self.acts[0].quantize(self.x)), padding=1)
        # Codes fall with the sums in some channels, and some sums meet a bound exactly.
        sign = rng.choice([-1, 1], channels[1])
        self.factor = (sign * 2.0 ** np.floor(-np.log2(np.abs(sums).max() / 2))).astype(f32)
        self.padding = int(rng.integers(0, 2))

    def _operands(self, layer, codes):
        return codes, self.acts[layer], self.codes[layer], self.weights[layer]

    def reference(self):
        sums = reference.conv2d(*self._operands(0, self.acts[0].quantize(self.x)), padding=1)
        y = f32(sums) * self.factor[:, None, None]
        sums = reference.conv2d(*self._operands(1, self.acts[1].quantize(y)), padding=self.padding)
        return f32(sums) * f32(self.acts[1].scale * self.weights[1].scale / 4)

    def emit(self, builder, x):
        for layer, padding in enumerate((1, self.padding)):
            act, weight = self.acts[layer], self.weights[layer]
            values = relax.const(weight.dequantize(self.codes[layer]))
            x = builder.emit(quantize(x, act, layer=f"{self.name}_{layer}"))
            plain = Encoding(weight.bits, weight.scale, weight.zero_point, weight.coefficients)
            w = builder.emit(quantize(values, plain, layer=f"{self.name}_{layer}"))
            x = builder.emit(relax.op.nn.conv2d(x, w, padding=padding))
            if not layer:
                real = f32(act.scale * weight.scale / 4)
                factor = relax.const((self.factor / real)[:, None, None])
                x = builder.emit(relax.op.multiply(x, factor))
        return x


def chains_module(chains, module_of):
    """Return a module of chains, each with an input and an output of its own."""

    def body(builder, *xs):
        return [chain.emit(builder, x) for chain, x in zip(chains, xs)]

    return module_of([chain.x.shape for chain in chains], body)
