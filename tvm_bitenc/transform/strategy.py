"""Each convolution is told how its branch sum is computed, and by which tile.

Before::

    out = bitenc.packed_conv2d(planes, w, o, t, d)  # strategy=""

After::

    out = bitenc.packed_conv2d(planes, w, o, t, d)
    # strategy="xnor", tile=[], origin="default rule"

With a tuned record ``tile`` has its values, and ``origin`` says what it promises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tvm
from tvm import relax

from ..codewords import MAX_CODEWORDS
from ..errors import UnsupportedError
from ..layer import ConvLayer
from ..op.packed import conv_layer_of, packed_conv2d_op
from ..op.registration import is_call_to
from ..records.decision import decided, record_of
from ..records.file import NO_RECORDS, Records
from ..schedule import strategy_costs
from ..strategy import AUTO, CODEBOOK, OTHERS, by_layer
from ..target import Target
from ..vta.region import region_of
from .rewrite import Graph, is_external, rewrite_calls


@tvm.transform.module_pass(opt_level=0, name="bitenc.Strategy")
@dataclass(frozen=True)
class Strategy:
    """Choose a kernel strategy for every layer.

    Parameters
    ----------
    strategy : {"auto", "xnor", "lut", "int8", "codebook"} or mapping
        ``auto`` takes what tuned records say, and where there is none what costs least by the cost
        model of the target's rule set, layer by layer.
        A mapping gives layers by name, and all others by ``"*"`` (default: auto).
    target : Target
    records : Records

    Raises
    ------
    UnsupportedError
        For an unknown strategy, a mapping that names a layer which isn't there, or ``codebook``
        for a layer that can't be computed so.
    """

    strategy: str | Mapping[str, str]
    target: Target
    records: Records = NO_RECORDS

    def __post_init__(self):
        by_layer(self.strategy)

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        names: set[str] = set()
        wanted = by_layer(self.strategy)

        def choose(call: relax.Call, _graph: Graph) -> relax.Expr | None:
            if isinstance(call.op, tvm.ir.GlobalVar) and is_external(mod[call.op]):
                # An accelerator has no choice.
                names.update(part.name for part in region_of(mod[call.op]).layers)
            if not is_call_to(call, packed_conv2d_op):
                return None
            name = str(call.attrs["layer"])
            names.add(name)
            strategy = self._chosen(call, wanted.get(name, wanted[OTHERS]))
            return decided(call, strategy, self.target, self.records)

        chosen = rewrite_calls(mod, choose)
        unknown = sorted(set(wanted) - names - {OTHERS})
        if unknown:
            raise UnsupportedError(
                f"strategy of layers {unknown}",
                "there are no such layers",
                f"The layers are {', '.join(sorted(names))}",
            )
        return chosen

    def _chosen(self, call: relax.Call, wanted: str) -> str:
        if wanted == CODEBOOK:
            self._check_codebook(conv_layer_of(call))
        if wanted != AUTO:
            return wanted
        record = record_of(call, self.target, self.records)
        if record is not None:
            return record.strategy
        costs = strategy_costs(conv_layer_of(call), self.target)
        return min(costs, key=costs.__getitem__)

    def _check_codebook(self, layer: ConvLayer) -> None:
        if CODEBOOK in strategy_costs(layer, self.target):
            return
        cause = f"target {self.target.name!r} has no kernel for so many codewords, taps or bits"
        if layer.distinct.codewords is None:
            kernel_size = "x".join(map(str, layer.kernel_size))
            cause = f"its {kernel_size} kernels aren't each one of at most {MAX_CODEWORDS}"
        raise UnsupportedError(
            f"strategy {CODEBOOK!r} of layer {layer.name!r}",
            cause,
            f'Use "{AUTO}" for it, by strategy={{"{layer.name}": "{AUTO}", ...}}',
        )
