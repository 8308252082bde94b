"""Edges of a network's graph, through whatever lies between its layers."""

import torch
from torch import nn

import tvm_bitenc as be
from tvm_bitenc.nn import QConv2d
from tvm_bitenc.report import Report


class Forked(nn.Module):
    """Two layers that read one, and a sum of both that a fourth reads."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(
            QConv2d(8, 8, 3, padding=1, weight_bits=2, act_bits=2) for _ in range(4)
        )

    def forward(self, x):
        first, left, right, last = self.convs
        x = first(x)
        return last(left(x) + right(x.relu()))


def test_edges_follow_the_numbers():
    report = be.build(be.from_torch(Forked().eval(), (torch.rand(1, 8, 6, 6),))).report()
    names = [row.name for row in report.layers]
    named = {(names[a] if a >= 0 else "input", names[b]) for a, b in report.edges}
    convs = [f"convs.{i}" for i in range(4)]
    assert ("input", convs[0]) in named and ("input", convs[3]) not in named
    assert {(convs[0], convs[1]), (convs[0], convs[2])} <= named
    sources = {source for source, reader in named if reader == convs[3]}
    # One of the two convolutions may hold the sum, and then it reads the other.
    assert sources and sources <= {convs[1], convs[2]}
    assert Report.from_dict(report.to_dict()) == report
