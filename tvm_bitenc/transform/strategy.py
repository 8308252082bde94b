"""Pass 6: each convolution is told how its branch sum is computed.

Before::

    out = bitenc.packed_conv2d(planes, w, o, t, d)  # strategy=""

After::

    out = bitenc.packed_conv2d(planes, w, o, t, d)  # strategy="xnor"
"""

from __future__ import annotations

import tvm
from tvm import relax

from ..errors import UnsupportedError
from ..op.packed import conv_layer_of, packed_conv2d_op
from ..op.registration import is_call_to, with_attributes
from ..te.conv_layer import ConvLayer
from .rewrite import rewrite_calls


def xnor_cost(layer: ConvLayer) -> float:
    """Vector instructions per output pixel and channel by `xnor`: xor, popcount, add; 8 lanes."""
    window = layer.kernel_size[0] * layer.kernel_size[1]
    return 3 / 8 * window * layer.words * layer.weight_bits * layer.act_bits


def int8_cost(layer: ConvLayer) -> float:
    """Vector instructions per output pixel and channel by `int8`: multiply, add; 16 lanes."""
    return 2 / 16 * layer.taps


def lut_cost(layer: ConvLayer) -> float:
    """Vector instructions per output pixel and channel by `lut`."""
    return 2 / 32 * layer.taps / 4 * layer.weight_bits * layer.act_bits


COSTS = {"xnor": xnor_cost, "lut": lut_cost, "int8": int8_cost}
STRATEGIES = tuple(COSTS)


@tvm.transform.module_pass(opt_level=0, name="bitenc.Strategy")
class Strategy:
    """Choose a kernel strategy for every layer.

    Parameters
    ----------
    strategy : {"auto", "xnor", "int8"}
        ``auto`` takes the cheapest by the costs above, layer by layer.

    Raises
    ------
    UnsupportedError
        For an unknown strategy.
    """

    def __init__(self, strategy: str = "auto"):
        if strategy not in ("auto", *STRATEGIES):
            raise UnsupportedError(
                f"strategy {strategy!r}", "isn't known", f"Use 'auto' or one of {STRATEGIES}"
            )
        self.strategy = strategy

    def transform_module(self, mod: tvm.IRModule, _ctx) -> tvm.IRModule:
        """Rewrite the module."""

        def choose(call: relax.Call, _graph) -> relax.Expr | None:
            if not is_call_to(call, packed_conv2d_op):
                return None
            return with_attributes(call, strategy=self._choice(conv_layer_of(call)))

        return rewrite_calls(mod, choose)

    def _choice(self, layer: ConvLayer) -> str:
        if self.strategy != "auto":
            return self.strategy
        return min(STRATEGIES, key=lambda strategy: COSTS[strategy](layer))
