"""What a rule set is: kernels, tiles and costs for one instruction set, as one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tvm import relax

from ..kernel.isa import Isa
from ..kernel.kernel import Kernel
from ..kernel.nest.tile import Tile
from ..layer import ConvLayer
from ..target import Target
from .work import Work


@dataclass(frozen=True)
class Space:
    """What may be chosen in the kernel of a call whose strategy is set.

    Parameters
    ----------
    knobs : mapping of str to tuple of int
        Values worth trying, by field of `Tile`.
    default : Tile
        What the rule itself takes.
    is_legal : callable
        Whether a tile of such values fits the layer.
    kernel : callable
        From tile to kernel; None where the rule declines.
    """

    knobs: Mapping[str, tuple[int, ...]]
    default: Tile
    is_legal: Callable[[Tile], bool]
    kernel: Callable[[Tile], Kernel | None]

    def allows(self, tile: Tile) -> bool:
        """Whether a kernel can be made with this tile."""
        named = all(getattr(tile, name) in values for name, values in self.knobs.items())
        return tile == self.default or (named and self.is_legal(tile))


Rule = Callable[[relax.Call, Target], "Kernel | None"]
SpaceOf = Callable[[relax.Call, Target], "Space | None"]
CostModel = Callable[[ConvLayer, Target], "dict[str, float] | None"]
IsaOf = Callable[[Target], "Isa | None"]
BestWork = Callable[[int, int, Any], "dict[str, Work]"]  # Of what `isa` of its set returns.


@dataclass(frozen=True)
class RuleSet:
    """How packed ops become kernels on one instruction set.

    Parameters
    ----------
    name : str
        What the ``rules`` of a target file call it.
    rules : tuple of Rule
        Each a function from a call and a target to a `Kernel`, None where it doesn't apply; tried
        in order.
    space : SpaceOf, optional
        What may be tuned in the kernel of a call; it returns None where there is nothing.
    costs : CostModel, optional
        Cycles that a layer takes by strategy; it returns None where the target lacks the
        instruction set.
    isa : IsaOf, optional
        What a target offers of the instruction set, None if it lacks it.
    best : BestWork, optional
        What as many products as its vectors have bits take at best, by strategy: from bits of the
        weights, bits of the activations and `Isa`.
    features : frozenset of str
        CPU features, in LLVM's spelling, that its kernels are made for and that `features.KERNELS`
        lacks: what was measured with them holds for no CPU without.
    """

    name: str
    rules: tuple[Rule, ...] = ()
    space: SpaceOf | None = None
    costs: CostModel | None = None
    isa: IsaOf | None = None
    best: BestWork | None = None
    features: frozenset[str] = frozenset()
