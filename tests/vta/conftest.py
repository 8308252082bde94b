"""Random convolutions as the accelerator's compiler takes them."""

import numpy as np
import pytest

from tests.vta.cases import run
from tvm_bitenc.accelerator import Accelerator
from tvm_bitenc.encoding import pack
from tvm_bitenc.layer import ConvLayer
from tvm_bitenc.vta.binary import dumps, loads
from tvm_bitenc.vta.compile_layer import compile_conv, output_of


def _conv_layer(layer, out_bits: int = 0, seed: int = 0) -> ConvLayer:
    acc = layer.accumulators()
    batch, channels, height, width = layer.act_codes.shape
    rng, out_channels = np.random.default_rng(seed), acc.shape[1]
    epilogue = ()
    if out_bits:
        direction = rng.choice([-1, 1], out_channels).astype(np.int32)
        low, high = int(acc.min()) - 2, int(acc.max()) + 2
        thresholds = rng.integers(low, high, (2**out_bits - 1, out_channels))
        epilogue = (np.sort(thresholds, axis=0).astype(np.int32), direction)
    offset = np.broadcast_to(layer.weight.offset, (out_channels,)).astype(np.int32)
    shape = (batch, height, width, channels)
    return ConvLayer(str(layer), shape, layer.weight_codes, offset, layer.geometry, *epilogue)


def _expected(layer, static: ConvLayer) -> np.ndarray:
    """Integer reference, as the accelerator lays it out."""
    acc = layer.accumulators().transpose(0, 2, 3, 1)
    if static.thresholds is None:
        return acc
    reached = (acc * static.direction)[..., None, :] >= static.thresholds
    return pack(reached.sum(axis=-2).astype(np.uint8), static.out_bits)


@pytest.fixture(scope="session")
def conv_layer():
    """``conv_layer(layer, out_bits)``: a `ConvLayer`, with random thresholds for some bits."""
    return _conv_layer


@pytest.fixture(scope="session")
def expected():
    """``expected(layer, conv_layer)``: packed planes or accumulators by encoding.py."""
    return _expected


@pytest.fixture(scope="session")
def planes():
    """``planes(layer)``: the layer's input, packed."""
    return lambda layer: pack(layer.act_codes.transpose(0, 2, 3, 1), layer.act.bits)


@pytest.fixture(scope="session")
def check_conv(conv_layer, expected, planes):
    """``check_conv(layer, out_bits=2, verilog=False)``: run its program as a file holds it."""

    def check(layer, out_bits=2, verilog=False):
        static, accelerator = conv_layer(layer, out_bits), Accelerator()
        program, _ = loads(dumps(compile_conv(static, accelerator), accelerator))
        assert planes(layer).size == program.operand_words >= program.input_words
        found = output_of(static, program, run(program, planes(layer), accelerator, verilog))
        assert np.array_equal(found, expected(layer, static))
        return program

    return check
