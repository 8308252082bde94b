"""Arguments and views of them are declared once, at the head of a kernel."""

import re

import numpy as np
import pytest

from tvm_bitenc.kernel.epilogue.compared import ComparedPlanes
from tvm_bitenc.kernel.nest.conv2d import conv2d_kernel
from tvm_bitenc.kernel.nest.tile import Tile
from tvm_bitenc.kernel.product.xnor import Xnor
from tvm_bitenc.schedule import avx512
from tvm_bitenc.target import load_target

DECLARED = re.compile(r"^( *)buffer\w* = .*(?:\.view\(|T\.decl_buffer\()", re.MULTILINE)


@pytest.fixture
def script(conv_layer):
    """Text of a kernel whose thresholds fall in some channels, so that bits are flipped."""
    codes = np.random.default_rng(0).integers(0, 4, (64, 5, 3, 3), dtype=np.uint8)
    limits, direction = np.tile([[-40], [0], [40]], 64), [1, -1] * 32
    layer = conv_layer(codes, 3, limits, direction, padding=(1, 1, 1, 1))
    product = Xnor(layer, avx512.isa_of(load_target("znver5")), Tile(2, 2))
    epilogue = ComparedPlanes(layer, product.terms, product.block, product.sum_dtype)
    shapes = (1, 4, 4, 2, 1), (1, 4, 4, 2, 1)
    return conv2d_kernel(layer, product, epilogue, shapes, False).function.script()


def test_views_are_declared_outside_of_all_loops(script):
    head = script.index("for ")
    found = list(DECLARED.finditer(script))
    assert len(found) > 8 and all(match.start() < head for match in found)


def test_no_view_is_declared_twice(script):
    lines = [line.partition(" = ")[2] for line in script.splitlines() if DECLARED.match(line)]
    assert len(set(lines)) == len(lines)
