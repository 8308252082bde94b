r"""How the kernels of a layer choose few codewords: two ways to learn a codebook.

A binary kernel of T taps is one of :math:`2^T` (512 for 3 by 3). A codebook has n of them, and each
kernel of a layer is the one nearest to its weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .permutation import assignment, gumbel_like, sinkhorn

LATENT_LIMIT = 3.0
LATENT_MARGIN = 1e-3  # Nearer to 0 than this, a sign stays what it was.
LATENT_INTERVAL = 25  # Training steps from one in which the latent kernels learn to the next.
START_LOGIT = 5.0  # Of the kernels that a permutation starts from; the others have 0.


def kernel_numbers(kernels: Tensor) -> Tensor:
    """Number of each binary kernel, int64 (N,) from (N, T): bit i is set where tap i is above 0."""
    taps = torch.arange(kernels.shape[1], device=kernels.device)
    return ((kernels > 0).long() << taps).sum(1)


def kernels_of(numbers: Tensor, taps: int) -> Tensor:
    """Kernels of these numbers, float32 -1 or +1, shape (N, T)."""
    bits = (numbers[:, None] >> torch.arange(taps, device=numbers.device)) & 1
    return 2 * bits.float() - 1


def nearest(weight: Tensor, kernels: Tensor) -> Tensor:
    r"""Codeword of the least squared distance to each kernel, the first of several.

    All codewords have the same norm, so that it is the one of the largest product. In float64, so
    that it doesn't depend on the order of the sum, nor on autocast.

    Parameters
    ----------
    weight : Tensor, shape (N, T)
    kernels : Tensor, shape (n, T)
        Codewords, -1 or +1.

    Returns
    -------
    Tensor of int64, shape (N,)
    """
    return (weight.detach().double() @ kernels.detach().double().T).argmax(1)


def most_frequent(weight: Tensor, count: int) -> Tensor:
    """Kernels that the signs of a weight (N, T) have most often, then others, float32 (n, T)."""
    numbers, times = kernel_numbers(weight).unique(return_counts=True)
    found = numbers[times.argsort(descending=True, stable=True)][:count]
    taps = weight.shape[1]
    return kernels_of(torch.cat([found, _unused(found, count - len(found), taps)]), taps)


def signs(x: Tensor) -> Tensor:
    """-1 or +1 of each number, -1 of 0, float32."""
    return torch.where(x > 0, 1.0, -1.0)


def _distinct(latent: Tensor, kernels: Tensor) -> Tensor:
    """The same, with unused kernels in place of those that are there already."""
    numbers, taps = kernel_numbers(kernels), kernels.shape[1]
    again = (numbers[:, None] == numbers).tril(-1).any(1)
    latent = latent.clone()
    latent[again] = kernels_of(_unused(numbers, int(again.sum()), taps), taps)
    return latent


def _unused(used: Tensor, count: int, taps: int) -> Tensor:
    """Numbers of kernels drawn at random from those not used."""
    drawn = torch.randperm(2**taps, device=used.device)
    return drawn[~torch.isin(drawn, used)][:count]


class LatentKernels(nn.Module):
    """Codewords that are signs of trained numbers (Sub-bit Networks, arXiv 2110.09195).

    The numbers learn in every 25th step alone, from all kernels that have chosen their codeword; in
    the others they have no gradient, and optimizers pass over them. Then they are
    clipped to [-3, 3], and a codeword that is there twice gives way to an unused one.

    Parameters
    ----------
    count : int
        n.
    taps : int
        T.

    Attributes
    ----------
    latent : Parameter of float32, shape (n, T)
    kernels : Tensor of float32, shape (n, T)
        Codewords, -1 or +1.
    steps : Tensor of int64, shape ()
        Training steps so far.
    """

    kernels: Tensor
    steps: Tensor

    def __init__(self, count: int, taps: int):
        super().__init__()
        self.latent = nn.Parameter(torch.ones(count, taps))
        self.register_buffer("kernels", torch.ones(count, taps))
        self.register_buffer("steps", torch.tensor(0))

    @torch.no_grad()
    def start(self, weight: Tensor) -> None:
        """Start from the most frequent kernels of a weight (N, T)."""
        self.latent.copy_(most_frequent(weight, len(self.latent)))
        self.settle()

    @torch.no_grad()
    def settle(self) -> None:
        """Bring the codewords up to date with the latent numbers."""
        # New tensors, not copy_: an earlier forward may still need the old ones for its backward.
        self.kernels = torch.where(
            self.latent.abs() >= LATENT_MARGIN, signs(self.latent), self.kernels
        )

    def forward(self) -> Tensor:
        """Codewords of this training step, float32 (n, T), with their gradient."""
        self.settle()
        self.steps = self.steps + 1
        kernels = self.kernels
        if int(self.steps) % LATENT_INTERVAL == 0:
            kernels = kernels + (self.latent - self.latent.detach())  # Adds 0.
            with torch.no_grad():
                self.latent.clamp_(-LATENT_LIMIT, LATENT_LIMIT)
                self.latent.copy_(_distinct(self.latent, self.kernels))
        return kernels


class PermutedKernels(nn.Module):
    r"""Codewords that a permutation chooses out of all kernels.

    That is Sparse Kernel Selection (arXiv 2303.14470). The hard permutation maximizes the sum of
    logits, with Gumbel noise in training; so no codeword is there twice. Its gradient is taken for
    that of the relaxed one, `sinkhorn` of logits over a temperature: the permutation
    straight-through estimator.

    Parameters
    ----------
    count : int
        n.
    taps : int
        T.

    Attributes
    ----------
    logits : Parameter of float32, shape (2^T, n)
    kernels : Tensor of float32, shape (n, T)
        Codewords, -1 or +1.
    temperature, noise : float
        Of the relaxation, and what Gumbel noise is multiplied by: see `anneal_codebooks`.
    """

    kernels: Tensor
    every: Tensor

    def __init__(self, count: int, taps: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(2**taps, count))
        self.register_buffer("kernels", torch.ones(count, taps))
        self.register_buffer("every", kernels_of(torch.arange(2**taps), taps), persistent=False)
        self.temperature, self.noise = 1.0, 0.0

    @torch.no_grad()
    def start(self, weight: Tensor) -> None:
        """Start from the most frequent kernels of a weight (N, T)."""
        count = self.logits.shape[1]
        self.logits.zero_()
        rows = kernel_numbers(most_frequent(weight, count))
        self.logits[rows, torch.arange(count, device=rows.device)] = START_LOGIT
        self.settle()

    @torch.no_grad()
    def settle(self) -> None:
        """Bring the codewords up to date with the logits."""
        self._choose(self.logits)

    def forward(self) -> Tensor:
        """Codewords of this training step, float32 (n, T), with their gradient."""
        logits: Tensor = self.logits
        if self.noise:
            logits = logits + self.noise * gumbel_like(logits)
        self._choose(logits.detach())
        relaxed = sinkhorn(logits / self.temperature).T @ self.every
        return self.kernels + (relaxed - relaxed.detach())  # Adds 0.

    def _choose(self, logits: Tensor) -> None:
        # New tensors, as above.
        rows = assignment(logits.double().cpu().numpy())
        self.kernels = self.every[torch.from_numpy(rows).to(logits.device)]


def anneal_codebooks(model: nn.Module, progress: float) -> None:
    """Set temperature and noise of all permutations of a model, for `select="permute"`.

    Call it before each step or epoch. The temperature falls from 3 to 1 and the noise from 0.3 to
    0, both in a straight line.

    Parameters
    ----------
    model : nn.Module
    progress : float
        From 0 at the start of the training to 1 at its end.
    """
    for module in model.modules():
        if isinstance(module, PermutedKernels):
            module.temperature = 3 - 2 * progress
            module.noise = 0.3 * (1 - progress)
