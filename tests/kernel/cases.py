"""Layers that kernels of all instruction sets are tried on, and what they must give."""

import dataclasses
import itertools

import numpy as np

from tvm_bitenc.branches import BranchGeometry
from tvm_bitenc.codewords import any_codes
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.layer import ConvLayer
from tvm_bitenc.op import branch_conv2d, threshold
from tvm_bitenc.reference import pads, pair

CHANNELS = (1, 3, 17, 64, 65, 130)
FAR = 10**6  # Beyond every accumulator.
WIDTHS = (7, 13)  # Some tile leaves pixels over in each.
W, A = Encoding.symmetric(2, 2.0), Encoding.unsigned(3, 2.0)


def layer_of(bits, channels, out_channels=64, kernel=(3, 3), size=14, codewords=None, **geometry):
    """A layer of some bits; all codes are 0, or its kernels are so many."""
    kappas = [tuple(2**b for b in range(count)) for count in bits]
    shape = (out_channels, channels // geometry.get("groups", 1), *kernel)
    codes = np.zeros(shape, np.uint8)
    if codewords is not None:
        codes = any_codes(shape, bits[0], codewords, np.random.default_rng(codewords))
    planes = BranchGeometry(kappas[1], kappas[0], 0, **geometry)
    return ConvLayer("conv", (1, size, size, channels), codes, np.zeros(out_channels, int), planes)


def layers_of(bits, random_layer, kinds, **window):
    rest = itertools.cycle(itertools.product(kinds.values(), kinds.values()))
    return [
        random_layer(
            8 * m + k,
            weight(m, 2.0),
            act(k, 2.0),
            channels=CHANNELS[(m + k) % len(CHANNELS)],
            size=(3, WIDTHS[m % 2]),
            **(window or dict(padding=1)),
        )
        for (m, k), (weight, act) in zip(bits, rest)
    ]


def unusual(random_layer):
    ternary = Encoding.ternary(2.0)
    zeros = Encoding(2, 2.0, np.random.default_rng(0).integers(0, 7, 8) / 2)
    options = [
        (ternary, ternary, dict(padding=1)),
        (W, Encoding.signed(3, 2.0), dict(channels=128, groups=2, padding=1)),
        (W, A, dict(channels=68, groups=4, out_channels=12, padding=1)),
        # Groups whose accumulators need sums of activations: an offset, or odd 8-bit weights.
        (Encoding.signed(2, 2.0), A, dict(channels=128, groups=2, padding=1)),
        (Encoding.symmetric(8, 2.0), A, dict(channels=16, groups=2, padding=1)),
        (W, A, dict(channels=66, groups=66, out_channels=66, padding=1)),
        (W, A, dict(dilation=2, padding=2, size=(5, 13))),
        (W, A, dict(padding=(0, 1, 2, 3), stride=2)),
        (W, A, dict(channels=130, batch=5, dense=True)),
        (zeros, A, dict(channels=17, padding=1, size=(3, 13))),
    ]
    return [random_layer(i, *pair, **window) for i, (*pair, window) in enumerate(options)]


def steps_of(layer, out_bits, is_even, seed):
    """Thresholds per channel inside the range of its accumulators: evenly spaced or at random.

    Channel 0 reaches none of them, channel 1 all; of even ones, channel 2 reaches half always.
    """
    rng = np.random.default_rng(seed)
    acc = np.moveaxis(layer.accumulators(), 1, 0).reshape(len(layer.weight_codes), -1)
    direction = rng.choice([-1, 1], len(acc))
    ends = np.stack([acc.min(axis=1), acc.max(axis=1)]) * direction
    low, high, count = ends.min(axis=0), ends.max(axis=0), 2**out_bits - 1
    if is_even:
        start = np.where(np.arange(len(acc)) == 2, 2 * low - high, low)
        found = np.linspace(start, high, count + 2)[1:-1]
    else:
        found = np.sort(rng.uniform(low, high, (count, len(acc))), axis=0)
    found = np.ceil(found).astype(np.int32)
    found[:, 0], found[:, 1] = FAR, -FAR
    return found, direction.astype(np.int32)


def thresholded(cases, module_of):
    def body(builder, *codes):
        found = []
        for x, (layer, limits, direction) in zip(codes, cases):
            acc = builder.emit(sum_of_branches(x, layer))
            found.append(builder.emit(threshold(acc, limits, direction)))
        return found

    return module_of([layer.act_codes.shape for layer, *_ in cases], body, "uint8")


def sum_of_branches(codes, layer):
    """The layer's op on codes."""
    return branch_conv2d(
        codes,
        layer.act,
        layer.weight_codes,
        layer.weight,
        strides=pair(layer.window.get("stride", 1)),
        padding=pads(layer.window.get("padding", 0)),
        dilation=pair(layer.window.get("dilation", 1)),
        groups=layer.window.get("groups", 1),
        layer=layer.name,
        branches=layer.window.get("branches"),
    )


def of_branches(layers, module_of):
    """A module of layers on codes that ends in their accumulators."""
    return module_of(
        [layer.act_codes.shape for layer in layers],
        lambda builder, *codes: [
            builder.emit(sum_of_branches(x, layer)) for x, layer in zip(codes, layers)
        ],
        "uint8",
    )


# Of the eight planes of an image, with weights of its own for each.
DIAGONAL = np.diag(2 ** np.arange(8))
OF_BITS = Encoding(8, 1.0, 127)  # Each plane counts as 0 and 1: an offset of 1.
SQUARES = np.array([[1, 2, 0], [2, 4, 0], [0, 0, 3]])  # Some planes take three counts.


def with_matrices(random_layer):
    """Layers whose branches are no product of coefficients."""
    w2, a2, w3, a3 = W, Encoding.unsigned(2), Encoding.symmetric(3), A
    w8, zeros = Encoding.symmetric(8), Encoding(3, 1.0, np.arange(16) % 5 / 2)
    options = {
        "bit planes": (w8, OF_BITS, DIAGONAL, dict(channels=3, padding=1, stride=2)),
        "squares": (w3, a3, SQUARES, dict(channels=65, padding=1)),
        "weight offsets": (zeros, a3, SQUARES, dict(channels=17, padding=(0, 1, 2, 3))),
        "whole words": (w3, a3, SQUARES, dict(channels=128, kernel=1)),
        "a row of zeros": (w2, a2, [[0, 0], [1, 3]], dict(channels=64, padding=1)),
        "a common factor": (w2, a2, [[1, 2], [3, 6]], dict(channels=8)),
        "groups": (w2, a2, [[1, 2], [2, 3]], dict(channels=128, groups=2, padding=1)),
        "depthwise": (w8, OF_BITS, DIAGONAL, dict(channels=16, groups=16, padding=1)),
        "subtracted": (w2, a2, [[1, -2], [0, 4]], dict(channels=9, dilation=2, padding=2)),
    }
    return [
        random_layer(
            seed, weight, act, out_channels=16, size=(5, 7), name=name, branches=matrix, **window
        )
        for seed, (name, (weight, act, matrix, window)) in enumerate(options.items())
    ]


def codes_of(layer, limits, direction):
    along = layer.accumulators() * direction[:, None, None]
    return (along[:, None] >= limits[None, :, :, None, None]).sum(axis=1).astype(np.uint8)


# Weight and activation bits, distinct channels, copies.
REPEATED = [
    (1, 1, 64, 4, dict(channels=64, padding=1)),
    (1, 1, 8, 8, dict(channels=70, padding=1)),
    (1, 2, 24, 2, dict(channels=17)),
    (2, 2, 16, 3, dict(channels=64, stride=2, padding=(0, 1, 2, 3))),
    (1, 3, 12, 4, dict(channels=33, padding=1)),  # No eights: shared in part.
    (3, 3, 5, 3, dict(channels=9)),  # Nor here, ever.
    (1, 8, 64, 2, dict(channels=3, kernel=1)),
    (1, 4, 32, 2, dict(channels=130, batch=3, dense=True)),
]


def repeated(random_layer, weight_of=Encoding.symmetric):
    """Layers whose output channels share weights."""
    found = []
    for seed, (m, k, distinct, copies, window) in enumerate(REPEATED):
        act = Encoding.symmetric(1, 2.0) if k == 1 else Encoding.unsigned(k, 2.0)
        size = {} if "dense" in window else dict(size=(4, 7))
        layer = random_layer(seed, weight_of(m, 2.0), act, out_channels=distinct, **window, **size)
        codes = np.concatenate([layer.weight_codes] * copies)
        found.append(dataclasses.replace(layer, weight_codes=codes))
    return found


def reordered(layer, out_channels, seed):
    """A layer whose output channels have its rows of weights in any order, some of them negated.

    A code is negated around the zero point where there is one for that, as ternary planes are bit
    by bit.
    """
    rng, distinct = np.random.default_rng(seed), len(layer.weight_codes)
    rows = rng.permutation([*range(distinct), *rng.integers(0, distinct, out_channels - distinct)])
    weight, codes = layer.weight, layer.weight_codes[rows].astype(int)
    is_negated = rng.integers(0, 2, out_channels).astype(bool)
    most = 2**weight.bits - 1
    if weight.zero_point.ndim:
        zeros = weight.zero_point[rows]
        zeros = np.where(is_negated, most - zeros, zeros)
        weight = dataclasses.replace(weight, zero_point=zeros)
        twice = np.full(out_channels, most)
    else:
        twice = np.full(out_channels, most if not weight.is_positional else 2 * weight.zero_point)
    negated = twice.reshape(-1, *[1] * (codes.ndim - 1)).astype(int) - codes
    has_codes = (negated >= 0) & (negated <= most)
    is_negated &= has_codes.reshape(out_channels, -1).all(axis=1)
    codes[is_negated] = negated[is_negated]
    return dataclasses.replace(layer, weight=weight, weight_codes=codes.astype(np.uint8))


# Encoding of the weights, bits of activations, distinct rows, output channels.
IN_ANY_ORDER = [
    (Encoding.symmetric(1, 2.0), 1, 5, 24, dict(channels=64, padding=1)),
    (Encoding.symmetric(1, 2.0), 1, 64, 130, dict(channels=70)),
    (Encoding.symmetric(1, 2.0), 2, 140, 192, dict(channels=33)),  # Three tables of words.
    (W, 2, 16, 50, dict(channels=65, stride=2, padding=(0, 1, 2, 3))),
    (Encoding.ternary(2.0), 2, 7, 64, dict(channels=17, padding=1)),
    (Encoding.signed(3, 2.0), 3, 9, 33, dict(channels=17, padding=1)),  # Sums of activations.
    (Encoding(2, 2.0, np.arange(6) / 2), 3, 6, 16, dict(channels=33, padding=1)),
    (W, 8, 20, 72, dict(channels=3, kernel=1)),
    (W, 4, 11, 40, dict(channels=130, batch=3, dense=True)),
]


def in_any_order(random_layer, cases=IN_ANY_ORDER):
    """Layers whose output channels share weights, but not in order."""
    found = []
    for seed, (weight, bits, distinct, channels, window) in enumerate(cases):
        act = Encoding.symmetric(1, 2.0) if bits == 1 else Encoding.unsigned(bits, 2.0)
        size = {} if "dense" in window else dict(size=(4, 7))
        layer = random_layer(seed, weight, act, out_channels=distinct, **window, **size)
        found.append(reordered(layer, channels, seed))
    return found
