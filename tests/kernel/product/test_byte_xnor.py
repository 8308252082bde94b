"""How bits are counted byte by byte on ARM; that counts are exact is for `test_arm.py`."""

import numpy as np
import tvm_ffi

from tvm_bitenc.kernel.epilogue.integers import Integers
from tvm_bitenc.kernel.nest.conv2d import conv2d_kernel
from tvm_bitenc.kernel.nest.tile import Tile
from tvm_bitenc.kernel.product.byte_xnor import ByteXnor
from tvm_bitenc.schedule import neon
from tvm_bitenc.target import load_target


def test_the_same_layer_gives_the_same_code(conv_layer):
    """Registers are cleared in an order that no address in memory decides."""
    codes = np.random.default_rng(0).integers(0, 4, (64, 256, 3, 3), dtype=np.uint8)
    layer = conv_layer(codes)
    product = ByteXnor(layer, neon.isa_of(load_target("cortex-a72")), Tile(2, 16))
    epilogue = Integers(layer, product.terms, product.block)
    shapes = (1, 4, 4, 2, 4), (1, 2, 2, 64)
    found = {
        tvm_ffi.structural_hash(conv2d_kernel(layer, product, epilogue, shapes, False).function)
        for _ in range(4)
    }
    assert len(found) == 1
