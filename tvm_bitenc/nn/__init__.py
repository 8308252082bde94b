"""Quantization-aware training in PyTorch: the paper's quantizers, layers and routes (no TVM)."""

from .bit_planes import BitPlaneConv2d
from .codebook import CodebookConv2d
from .codewords import anneal_codebooks
from .initialize import init_from
from .layers import QActivation, QConv1d, QConv2d, QLinear
from .matmul import QMatMul
from .models import DigitsCNN, FashionNet, ResNet18
from .piecewise import PiecewiseActivation, PiecewiseConv2d
from .quantize_op import quantize
from .quantizers import hard_relu, hard_tanh, mbn, mbn_planes, q_k
from .transposed import QConvTranspose1d, QConvTranspose2d

__all__ = [
    "BitPlaneConv2d",
    "CodebookConv2d",
    "DigitsCNN",
    "FashionNet",
    "PiecewiseActivation",
    "PiecewiseConv2d",
    "QActivation",
    "QConv1d",
    "QConv2d",
    "QConvTranspose1d",
    "QConvTranspose2d",
    "QLinear",
    "QMatMul",
    "ResNet18",
    "anneal_codebooks",
    "hard_relu",
    "hard_tanh",
    "init_from",
    "mbn",
    "mbn_planes",
    "q_k",
    "quantize",
]
