"""Convolutions whose binary kernels are few: less than one bit a weight."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .codewords import LatentKernels, PermutedKernels, nearest
from .layers import QActivation, QConv2d, check_choice

CODEWORDS = (16, 32, 64)
MAX_TAPS = 9
CHOICES: dict[str, type[LatentKernels] | type[PermutedKernels]] = {
    "nearest": LatentKernels,
    "permute": PermutedKernels,
}


class CodebookConv2d(QConv2d):
    r"""`torch.nn.Conv2d` whose kernels are few codewords, and that quantizes its input first.

    Mathematics and attributes are those of a `QConv2d` of 1-bit weights, but the weight integers of
    a kernel, one output and one input channel, are the codeword nearest to its weights out of n:
    an index of 4, 5 or 6 bits where there were 9, that is, .44, .56 or .67 bit a weight.

    The gradient of the weight passes straight through to it within [-1, 1]. Codewords learn as
    `select` says; they start from the most frequent signs of kernels.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in `torch.nn.Conv2d`; `padding_mode` must be "zeros". Kernels have at most 9 taps, and
        more possible values than codewords.
    codewords : {16, 32, 64}
        n.
    select : {"nearest", "permute"}
        ``nearest``: signs of latent numbers, trained now and then (`codewords.LatentKernels`,
        Sub-bit Networks). ``permute``: the first of a trained permutation of all kernels
        (`codewords.PermutedKernels`, Sparse Kernel Selection).
    act_bits, act_kind, act
        As in `QConv2d`.

    Attributes
    ----------
    choice : LatentKernels or PermutedKernels
        With `choice.kernels`, the codewords, float32 -1 or +1, shape (n, taps).
    index : Tensor of int64, shape (out_channels, in_channels / groups)
        Codeword of each kernel.

    Raises
    ------
    ValueError
        For arguments outside these sets, or both or neither of `act_bits` and `act`.
    """

    index: Tensor
    choice: LatentKernels | PermutedKernels

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        codewords: int,
        select: str = "nearest",
        act_bits: int | None = None,
        act_kind: str | None = None,
        act: QActivation | None = None,
    ):
        check_choice("CodebookConv2d: padding_mode", padding_mode, ("zeros",))
        check_choice("CodebookConv2d: select", select, CHOICES)
        window = (kernel_size, stride, padding, dilation, groups)
        nn.Conv2d.__init__(self, in_channels, out_channels, *window, bias)  # Quantizers come last.
        taps = self.weight[0, 0].numel()
        if codewords not in CODEWORDS or taps > MAX_TAPS or 2**taps <= codewords:
            raise ValueError(
                f"CodebookConv2d: {codewords!r} codewords of {taps} taps. Use one of {CODEWORDS},"
                f" fewer than the 2^taps kernels that there are, and at most {MAX_TAPS} taps."
            )
        self.codewords, self.select = codewords, select
        self.choice = CHOICES[select](codewords, taps)
        self.register_buffer("index", torch.zeros(self.weight.shape[:2], dtype=torch.long))
        self._init_quantizers(1, act_bits, act_kind, act, "qnn")
        self.start_codebook()

    def start_codebook(self) -> None:
        """Take as codewords the most frequent kernels of the weight's signs."""
        self.choice.start(self._kernels())
        self.update_scales()

    @torch.no_grad()
    def update_scales(self) -> None:
        """Recompute the half steps, codewords and indices from what has been trained.

        This happens by itself in training and on leaving it. Call it after changing the weight in
        eval mode.
        """
        super().update_scales()
        self.choice.settle()
        self.index = nearest(self._kernels(), self.choice.kernels).reshape(self.index.shape)

    def weight_integers(self) -> Tensor:
        """-1 or +1 of each weight, float32, same shape."""
        if not self.training:
            kernels = self.choice.kernels[self.index]
            return self.weight_grid(kernels.reshape(self.weight.shape))
        kernels = self.choice()
        self.index = nearest(self._kernels(), self.choice.kernels).reshape(self.index.shape)
        clipped = self.weight.clamp(-1, 1)
        chosen = functional.embedding(self.index, kernels).reshape(self.weight.shape)
        return chosen + (clipped - clipped.detach())  # Adds 0.

    def _operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.training:
            super().update_scales()  # Of the half steps alone: `weight_integers` chooses kernels.
        return self.act.integers(x), self.weight_integers()

    def _kernels(self) -> Tensor:
        """The weight as (kernels, taps)."""
        return self.weight.flatten(0, 1).flatten(1)

    def extra_repr(self) -> str:
        """Arguments for `repr`."""
        return f"{super().extra_repr()}, codewords={self.codewords}, select={self.select!r}"
