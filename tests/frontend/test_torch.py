"""Imported torch models give torch's own numbers."""

import pytest
import torch
from torch import nn

import tvm_bitenc as be
from tvm_bitenc.transform.pipeline import no_lowering


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT",
    reason="torch rounds batch-norm twice on CPUs without FMA: run on one that has it",
)
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_is_torchs_own(affine, same):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(64, affine=affine)
    norm.running_mean.normal_(), norm.running_var.uniform_(0.1, 3)
    if affine:
        nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    x = torch.randn(4, 64, 8, 8)
    lib = be.build(be.from_torch(norm.eval(), (x,)), pipeline=no_lowering)
    assert same(lib(x), norm(x).detach().numpy())
