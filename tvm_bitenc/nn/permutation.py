r"""Permutations that learn: the relaxed one of Sinkhorn, and the hard one next to it.

Choosing n of N things is a permutation of all N whose first n places count. The other places are
alike, so that one column stands for all of them: what would be N by N is N by n + 1.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

SINKHORN_ROUNDS = 10
LOWEST_EXPONENT = -300.0


def gumbel_like(x: Tensor) -> Tensor:
    """Independent samples of the standard Gumbel distribution, of shape and dtype of x."""
    return -torch.empty_like(x).exponential_().clamp_min(torch.finfo(x.dtype).tiny).log()


def sinkhorn(logits: Tensor, rounds: int = SINKHORN_ROUNDS) -> Tensor:
    r"""Relaxed choice of n of N things (Mena et al., arXiv 1802.08665).

    Rows and columns of :math:`\exp X` are divided by their sums in turn. The columns of the N - n
    places that don't count have logits of 0.

    Parameters
    ----------
    logits : Tensor of float32, shape (N, n)
        X, n < N.
    rounds : int

    Returns
    -------
    Tensor of float32, shape (N, n)
        Columns add up to 1, rows to at most 1 but for what the last round left.
    """
    things, places = logits.shape
    others = things - places
    sums = torch.ones(places + 1, dtype=torch.float64, device=logits.device)
    sums[-1] = others
    # Small temperatures make logits large: what float64 can't hold would end as 0 / 0.
    table = functional.pad(logits.double(), (0, 1))
    table = (table - table.detach().amax(1, keepdim=True)).clamp_min(LOWEST_EXPONENT).exp()
    columns = sums  # What each column is multiplied by; for the others, that they are many.
    for _ in range(rounds):
        rows = 1 / (table @ columns)
        columns = sums / (rows @ table)
    return (rows[:, None] * table * columns)[:, :-1].to(logits.dtype)


def assignment(gains: np.ndarray) -> np.ndarray:
    """Choose a row of its own for each column so that the sum of gains is the largest.

    The Hungarian method, by shortest augmenting paths. It is what `sinkhorn` goes to as its logits
    grow.

    Parameters
    ----------
    gains : ndarray of float64, shape (N, n)
        n <= N.

    Returns
    -------
    ndarray of int64, shape (n,)
        The row of each column.
    """
    best = gains.argmax(0)
    if len(np.unique(best)) == len(best):
        return best  # Each can have the row that it likes most, as is usual.
    costs = -gains.T
    column_price, row_price = np.zeros(len(costs)), np.zeros(len(gains))
    owner, chosen = np.full(len(gains), -1), np.full(len(costs), -1)
    for column in range(len(costs)):
        end, before = _cheapest_path(column, costs, column_price, row_price, owner, chosen)
        row = end
        while row >= 0:  # Along the path each column leaves its row for the next.
            taker = owner[row] = before[row]
            chosen[taker], row = row, chosen[taker]
    return chosen


def _cheapest_path(
    column: int,
    costs: np.ndarray,
    column_price: np.ndarray,
    row_price: np.ndarray,
    owner: np.ndarray,
    chosen: np.ndarray,
) -> tuple[int, np.ndarray]:
    """Free row at the end of the cheapest path from a column, and the column before each row.

    Updates the prices, so that what is left of a cost is never negative, and 0 along the path.
    """
    cost = np.full(len(owner), np.inf)
    before, done = np.full(len(owner), -1), np.zeros(len(owner), bool)
    current, length = column, 0.0
    while True:
        onward = length + costs[current] - column_price[current] - row_price
        shorter = ~done & (onward < cost)
        cost[shorter], before[shorter] = onward[shorter], current
        row = int(np.where(done, np.inf, cost).argmin())
        length = cost[row]
        if owner[row] < 0:
            break
        done[row], current = True, owner[row]
    column_price[column] += length
    column_price[owner[done]] += length - cost[done]
    row_price[done] -= length - cost[done]
    return row, before
