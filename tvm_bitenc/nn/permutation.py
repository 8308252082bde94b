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

    It is what `sinkhorn` goes to as its logits grow.

    Parameters
    ----------
    gains : ndarray of float64, shape (N, n)
        n <= N.

    Returns
    -------
    ndarray of int64, shape (n,)
        The row of each column.

    Raises
    ------
    ImportError
        Without scipy.
    """
    best = gains.argmax(0)
    if len(np.unique(best)) == len(best):
        return best  # Each can have the row that it likes most, as is usual.
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        message = "permuted codewords need scipy: pip install 'tvm-bitenc[torch]'"
        raise ImportError(message) from error
    rows, columns = linear_sum_assignment(gains, maximize=True)
    return rows[columns.argsort()]
