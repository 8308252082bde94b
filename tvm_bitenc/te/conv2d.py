r"""Branch-sum convolution: the plain definition on codes, and the packed xnor-popcount one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tvm import te, tirx

from ..branches import BranchGeometry
from ..encoding import WORD_BITS, pack
from ..layer import ConvLayer


def _bipolar(code: tirx.Expr, coefficients: Sequence[int]) -> tirx.Expr:
    """v of a code: sum over planes of coefficient * (2 bit - 1), int32."""
    code = tirx.Cast("int32", code)
    return sum(kappa * (2 * ((code >> m) & 1) - 1) for m, kappa in enumerate(coefficients))


def _factors(geometry: BranchGeometry) -> tuple[list[Callable], list[Callable]]:
    """Numbers of an activation's code, and those of a weight's code and offset, to be multiplied.

    One of each side for two encodings, else one for each activation plane and one beside them.
    """
    weights, acts = geometry.weight_coefficients, geometry.act_coefficients
    if geometry.is_product:
        return (
            [lambda code: _bipolar(code, acts) + geometry.act_offset],
            [lambda code, offset: _bipolar(code, weights) + offset],
        )
    of_planes = [
        lambda code, offset, column=column, kappa=kappa: _bipolar(code, column) + kappa * offset
        for column, kappa in zip(zip(*geometry.branch_matrix), acts)
    ]
    signs = [lambda code, k=k: _bipolar(code >> k, (1,)) for k in range(len(acts))]
    return (
        [*signs, lambda _code: tirx.const(1, "int32")],
        [*of_planes, lambda code, o: (_bipolar(code, weights) + o) * geometry.act_offset],
    )


def chosen(number: tirx.Expr, values: Sequence[tirx.Expr | int]) -> tirx.Expr:
    """The value that a number chooses; integers are int32."""
    found = tirx.const(values[0], "int32") if isinstance(values[0], int) else values[0]
    for i, value in enumerate(values[1:], 1):
        found = tirx.if_then_else(number == i, value, found)
    return found


def branch_conv2d(
    codes: te.Tensor, weight: te.Tensor, weight_offset: te.Tensor, geometry: BranchGeometry
) -> te.Tensor:
    """Accumulators, int32 NCHW, from uint8 codes NCHW and OIHW, as `BranchGeometry` has them.

    Of two encodings they sum products (v_a + o_a)(v_w + o_w). With a branch matrix, planes of the
    activations become channels, and one more channel is 1 everywhere.
    """
    batch, channels, height, width = codes.shape
    out_channels, _, kernel_h, kernel_w = (int(size) for size in weight.shape)
    top, left, bottom, right = geometry.padding
    (stride_h, stride_w), (dilation_h, dilation_w) = geometry.strides, geometry.dilation
    act_values, weight_values = _factors(geometry)
    parts = len(act_values)

    def padded(n: tirx.Var, c: tirx.Var, y: tirx.Var, x: tirx.Var) -> tirx.Expr:
        inside = tirx.all(y >= top, y < top + height, x >= left, x < left + width)
        code = codes[n, c // parts, y - top, x - left]
        value = chosen(c % parts, [value(code) for value in act_values])
        return tirx.if_then_else(inside, value, 0)

    def integer(o: tirx.Var, c: tirx.Var, i: tirx.Var, j: tirx.Var) -> tirx.Expr:
        code, offset = weight[o, c // parts, i, j], weight_offset[o]
        return chosen(c % parts, [value(code, offset) for value in weight_values])

    shape = (batch, channels * parts, height + top + bottom, width + left + right)
    a = te.compute(shape, padded, name="act_integers")
    per_group = int(weight.shape[1]) * parts
    w_shape = (out_channels, per_group, kernel_h, kernel_w)
    w = te.compute(w_shape, integer, name="weight_integers")
    c, i, j = (te.reduce_axis((0, size), name) for size, name in zip(w_shape[1:], "cij"))
    out_per_group = out_channels // geometry.groups
    return te.compute(
        (
            batch,
            out_channels,
            geometry.out_size(height, kernel_h, 0),
            geometry.out_size(width, kernel_w, 1),
        ),
        lambda n, o, y, x: te.sum(
            a[
                n,
                o // out_per_group * per_group + c,
                y * stride_h + i * dilation_h,
                x * stride_w + j * dilation_w,
            ]
            * w[o, c, i, j],
            axis=[c, i, j],
        ),
        name="branch_conv2d",
    )


def xnor_weights(layer: ConvLayer, lanes: int) -> np.ndarray:
    """Weight planes as the xnor kernel reads them: `lanes` output channels side by side.

    Returns
    -------
    ndarray of uint64, shape (groups, blocks, kernel_h, kernel_w, words, weight_bits, lanes)
    """
    groups = layer.geometry.groups
    words = pack(np.moveaxis(layer.weight_codes, 1, -1), layer.weight_bits)
    words = words.reshape(groups, -1, *words.shape[1:])  # g, o, i, j, bit, word
    words = np.pad(words, [(0, 0), (0, -words.shape[1] % lanes)] + [(0, 0)] * 4)
    words = words.reshape(groups, -1, lanes, *words.shape[2:])  # g, block, lane, i, j, bit, word
    return np.ascontiguousarray(words.transpose(0, 1, 3, 4, 6, 5, 2))


def xnor_conv2d(
    planes: te.Tensor,
    weight: te.Tensor,
    border: te.Tensor,
    row_class: te.Tensor,
    column_class: te.Tensor,
    weight_offset: te.Tensor,
    layer: ConvLayer,
) -> te.Tensor:
    r"""Accumulators from packed planes by xor and popcount.

    .. math:: acc = border - 2 \sum_{m,k} G_{mk}\,
              \mathrm{popcount}(a_k \oplus w_m) + 2 o_w \sum_k \kappa_k \mathrm{popcount}(a_k)

    Parameters
    ----------
    planes : te.Tensor of uint64, shape (batch, height, width, act_bits, words of all channels)
    weight : te.Tensor of uint64, as `xnor_weights` lays it out
    border, row_class, column_class : te.Tensor of int32, as `ConvLayer.border` makes them
    weight_offset : te.Tensor of int32, shape (out_channels,)
    layer : ConvLayer

    Returns
    -------
    te.Tensor of int32, shape (batch, out_height, out_width, out_channels)
    """
    geometry, lanes = layer.geometry, int(weight.shape[-1])
    blocks, matrix = int(weight.shape[1]), np.array(geometry.branch_matrix)
    pairs = list(zip(*map(np.ndarray.tolist, np.nonzero(matrix))))
    per_group = layer.out_channels // geometry.groups
    grouped = regroup(pad_planes(planes, geometry), layer)
    act, axes = _window(grouped, layer)
    i, j, word = axes

    def differs(
        n: tirx.Var,
        y: tirx.Var,
        x: tirx.Var,
        g: tirx.Var,
        block: tirx.Var,
        branch: tirx.Var,
        lane: tirx.Var,
    ) -> tirx.Expr:
        m, k = branch // layer.act_bits, branch % layer.act_bits
        if len(pairs) < matrix.size:
            m, k = (chosen(branch, numbers) for numbers in zip(*pairs))
        bits = act(n, y, x, k, g) ^ weight[g, block, i, j, word, m, lane]
        return te.sum(tirx.popcount(bits), axis=[i, j, word])

    shape = (planes.shape[0], *layer.output_size, geometry.groups, blocks, len(pairs), lanes)
    differing = te.compute(shape, differs, name="differing")

    def doubled(n: tirx.Var, y: tirx.Var, x: tirx.Var, o: tirx.Var) -> tirx.Expr:
        group, channel = o // per_group, o % per_group
        block, lane = channel // lanes, channel % lanes
        branches = sum(
            differing[n, y, x, group, block, branch, lane]
            * tirx.const(2 * int(matrix[pair]) % 2**64, "uint64")
            for branch, pair in enumerate(pairs)
        )
        return tirx.Cast("uint32", branches)

    constants = (border, row_class, column_class, weight_offset)
    return accumulator_of(doubled, grouped, constants, layer)


def _window(grouped: te.Tensor, layer: ConvLayer):
    """Words under a window: a function of output position, plane and group, and its axes."""
    (stride_h, stride_w), (dilation_h, dilation_w) = layer.geometry.strides, layer.geometry.dilation
    sizes = (*layer.kernel_size, layer.words)
    i, j, word = (te.reduce_axis((0, size), name) for size, name in zip(sizes, ("i", "j", "word")))

    def act(n: tirx.Var, y: tirx.Var, x: tirx.Var, k: tirx.Var, g: tirx.Var) -> tirx.Expr:
        row, column = y * stride_h + i * dilation_h, x * stride_w + j * dilation_w
        return grouped[n, row, column, k, g * layer.words + word]

    return act, (i, j, word)


def accumulator_of(
    doubled: Callable[..., tirx.Expr],
    grouped: te.Tensor,
    constants: tuple[te.Tensor, ...],
    layer: ConvLayer,
) -> te.Tensor:
    """Accumulators from how much activations and weights differ.

    Parameters
    ----------
    doubled : callable
        From (n, y, x, o) to twice the differing bits, weighted, uint32.
    grouped : te.Tensor
        As `regroup` returns it.
    constants : tuple of te.Tensor
        border, row_class, column_class, weight_offset.
    layer : ConvLayer
    """
    border, row_class, column_class, weight_offset = constants
    ones = _act_ones(grouped, layer) if layer.has_act_sum else None
    per_group = layer.out_channels // layer.geometry.groups

    def accumulator(n: tirx.Var, y: tirx.Var, x: tirx.Var, o: tirx.Var) -> tirx.Expr:
        # Modulo 2^32: partial terms may leave int32 though the accumulator doesn't.
        total = tirx.Cast("uint32", border[row_class[y], column_class[x], o])
        total = total - doubled(n, y, x, o)
        if ones is not None:
            offset = tirx.Cast("uint32", 2 * weight_offset[o])
            total = total + offset * ones[n, y, x, o // per_group]
        return tirx.Cast("int32", total)

    shape = (grouped.shape[0], *layer.output_size, layer.out_channels)
    return te.compute(shape, accumulator, name="accumulator")


def pad_planes(planes: te.Tensor, geometry: BranchGeometry) -> te.Tensor:
    """Surround planes with code 0; the border constants take its products back."""
    top, left, bottom, right = geometry.padding
    if not any(geometry.padding):
        return planes
    batch, height, width, bits, words = planes.shape
    return te.compute(
        (batch, height + top + bottom, width + left + right, bits, words),
        lambda n, y, x, k, word: tirx.if_then_else(
            tirx.all(y >= top, y < top + height, x >= left, x < left + width),
            planes[n, y - top, x - left, k, word],
            tirx.const(0, "uint64"),
        ),
        name="padded",
    )


def regroup(planes: te.Tensor, layer: ConvLayer) -> te.Tensor:
    """Let every group of channels start a word, the bits above its last channel 0."""
    per_group, groups, words = layer.weight_codes.shape[1], layer.geometry.groups, layer.words
    if groups == 1 or per_group % WORD_BITS == 0:
        return planes
    batch, height, width, bits, all_words = planes.shape

    def word(n: tirx.Var, y: tirx.Var, x: tirx.Var, k: tirx.Var, index: tirx.Var) -> tirx.Expr:
        group, part = index // words, index % words
        start = group * per_group + part * WORD_BITS
        first, shift = start // WORD_BITS, tirx.Cast("uint64", start % WORD_BITS)
        left = tirx.min(per_group - part * WORD_BITS, WORD_BITS)
        low = planes[n, y, x, k, first] >> shift
        zero, size = tirx.const(0, "uint64"), tirx.const(WORD_BITS, "uint64")
        straddles = tirx.all(shift > zero, first + 1 < all_words)
        following = tirx.if_then_else(straddles, planes[n, y, x, k, first + 1], zero)
        high = following << tirx.if_then_else(straddles, size - shift, zero)
        mask = tirx.const(2**64 - 1, "uint64") >> tirx.Cast("uint64", WORD_BITS - left)
        return (low | high) & mask

    shape = (batch, height, width, bits, groups * words)
    return te.compute(shape, word, name="regrouped")


def _act_ones(grouped: te.Tensor, layer: ConvLayer) -> te.Tensor:
    """Weighted number of set bits under the window, uint32: (v_a + sum of coefficients) / 2."""
    act, axes = _window(grouped, layer)
    return te.compute(
        (grouped.shape[0], *layer.output_size, layer.geometry.groups),
        lambda n, y, x, g: te.sum(
            sum(
                tirx.Cast("uint32", tirx.popcount(act(n, y, x, k, g)))
                * tirx.const(kappa % 2**32, "uint32")
                for k, kappa in enumerate(layer.geometry.act_coefficients)
            ),
            axis=list(axes),
        ),
        name="act_ones",
    )
