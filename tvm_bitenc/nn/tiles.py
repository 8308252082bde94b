r"""Weights of one bit that are copies of one tile (Gorbett et al., arXiv 2407.12075).

A weight W of N numbers, seen as p rows of N / p, has as its tile the signs of the sums of rows:

.. math:: t_j = +1 \text{ if } \sum_{i=1}^p W_{ij} > 0 \text{ else } -1

p copies of the tile are the layer's weights; copy i has the scale
:math:`\alpha_i = \mathrm{mean}_j |W_{ij}|`. Deployed are N / p bits and p numbers. Where p divides
the output channels a copy is a group of whole channels, so that channel o computes the same sum as
channel o mod (O / p), and the compiler makes it once.
"""

from __future__ import annotations

import torch
from torch import Tensor


def check_tiles(name: str, tiles: int, weight: Tensor, weight_bits: int, route: str) -> int:
    """Return p if a layer's weight can be made of p tiles.

    Raises
    ------
    ValueError
        If it can't, with what would.
    """
    if not isinstance(tiles, int) or tiles < 1 or weight.numel() % tiles:
        raise ValueError(
            f"{name}: tiles = {tiles!r}, which doesn't divide {weight.numel()} weights."
            f" Use a divisor of the {len(weight)} output channels."
        )
    if tiles > 1 and (weight_bits, route) != (1, "qnn"):
        raise ValueError(
            f"{name}: tiles = {tiles} with weight_bits = {weight_bits}, weight_route = {route!r}."
            " Tiles are signs: use weight_bits=1 and weight_route='qnn'."
        )
    return tiles


def tile_of(weight: Tensor, tiles: int) -> Tensor:
    """The tile of a weight, float32 -1 or +1, shape (N / p,).

    Parameters
    ----------
    weight : Tensor
        Output channels on axis 0.
    tiles : int
        p.
    """
    # In float64, so that the sign doesn't depend on the order of the sum.
    sums = weight.detach().double().reshape(tiles, -1).sum(0)
    return torch.where(sums > 0, 1.0, -1.0).float()


def tile_scales(weight: Tensor, tiles: int) -> Tensor:
    """Scale of each output channel, shape (out_channels,): one for all where p doesn't divide them.

    Parameters
    ----------
    weight : Tensor
        Output channels on axis 0.
    tiles : int
        p.
    """
    if len(weight) % tiles:
        return weight.abs().mean().expand(len(weight))
    return weight.abs().reshape(tiles, -1).mean(1).repeat_interleave(len(weight) // tiles)
