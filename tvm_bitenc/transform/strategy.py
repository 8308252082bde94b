"""Each convolution is told how its branch sum is computed.

Before::

    out = bitenc.packed_conv2d(planes, w, o, t, d)  # strategy=""

After::

    out = bitenc.packed_conv2d(planes, w, o, t, d)  # strategy="xnor"
"""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import relax

from ..errors import UnsupportedError
from ..layer import ConvLayer
from ..op.packed import conv_layer_of, packed_conv2d_op
from ..op.registration import is_call_to, with_attributes
from ..schedule import strategy_costs
from ..strategy import AUTO, OTHERS, by_layer
from ..target import Target
from ..tuning.apply import record_of
from ..vta.offloaded import offloaded
from .rewrite import is_external, rewrite_calls


@tvm.transform.module_pass(opt_level=0, name="bitenc.Strategy")
class Strategy:
    """Choose a kernel strategy for every layer.

    Parameters
    ----------
    strategy : {"auto", "xnor", "lut", "int8"} or mapping
        ``auto`` takes what the target's tuned records say, and where there is none what costs
        least by the cost model of its rule set, layer by layer.
        A mapping gives layers by name, and all others by ``"*"`` (default: auto).
    target : Target

    Raises
    ------
    UnsupportedError
        For an unknown strategy, or a mapping that names a layer which isn't there.
    """

    def __init__(self, strategy: str | Mapping[str, str], target: Target):
        self.by_layer, self.target = by_layer(strategy), target

    def transform_module(self, mod: tvm.IRModule, _ctx) -> tvm.IRModule:
        """Rewrite the module."""
        names: set[str] = set()

        def choose(call: relax.Call, _graph) -> relax.Expr | None:
            if isinstance(call.op, tvm.ir.GlobalVar) and is_external(mod[call.op]):
                names.add(offloaded(mod[call.op]).name)  # An accelerator has no choice.
            if not is_call_to(call, packed_conv2d_op):
                return None
            layer = conv_layer_of(call)
            names.add(layer.name)
            return with_attributes(call, strategy=self._choice(layer, call))

        chosen = rewrite_calls(mod, choose)
        unknown = sorted(set(self.by_layer) - names - {OTHERS})
        if unknown:
            raise UnsupportedError(
                f"strategy of layers {unknown}",
                "there are no such layers",
                f"The layers are {', '.join(sorted(names))}",
            )
        return chosen

    def _choice(self, layer: ConvLayer, call: relax.Call) -> str:
        wanted = self.by_layer.get(layer.name, self.by_layer[OTHERS])
        if wanted != AUTO:
            return wanted
        record = record_of(call, self.target)
        if record is not None:
            return record.strategy
        costs = strategy_costs(layer, self.target)
        return min(costs, key=costs.get)
