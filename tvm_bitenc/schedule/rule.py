"""What a schedule rule is, and where rules are found."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tvm import relax

from ..errors import TargetError
from ..kernel.kernel import Kernel
from ..kernel.nest.tile import Tile
from ..layer import ConvLayer
from ..target import Target

Rule = Callable[[relax.Call, Target], "Kernel | None"]
_rules: dict[str, list[Rule]] = {}


def schedule_rule(rule_set: str) -> Callable[[Rule], Rule]:
    """Register a rule at the end of a rule set; a set exists once it has a rule."""

    def register(rule: Rule) -> Rule:
        _rules.setdefault(rule_set, []).append(rule)
        return rule

    return register


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


SpaceOf = Callable[[relax.Call, Target], "Space | None"]
_spaces: dict[str, SpaceOf] = {}


def search_space(rule_set: str) -> Callable[[SpaceOf], SpaceOf]:
    """Register what may be tuned under a rule set; None where there is nothing."""

    def register(space_of: SpaceOf) -> SpaceOf:
        _spaces[rule_set] = space_of
        return space_of

    return register


def find_space(call: relax.Call, target: Target) -> Space | None:
    """Return the space of the first rule set of the target that has one for this call."""
    rule_sets()
    found = (_spaces[name](call, target) for name in target.rules if name in _spaces)
    return next((space for space in found if space is not None), None)


CostModel = Callable[[ConvLayer, Target], "dict[str, float] | None"]
_cost_models: dict[str, CostModel] = {}


def cost_model(rule_set: str) -> Callable[[CostModel], CostModel]:
    """Register what each strategy costs under a rule set.

    The function returns the cost of a layer by strategy, in any unit, or None where the rule set
    doesn't apply to the target.
    """

    def register(model: CostModel) -> CostModel:
        _cost_models[rule_set] = model
        return model

    return register


def strategy_costs(layer: ConvLayer, target: Target) -> dict[str, float]:
    """Costs of a layer by strategy, by the first rule set of the target that knows them."""
    rule_sets()
    for name in (*target.rules, "generic"):
        costs = _cost_models[name](layer, target) if name in _cost_models else None
        if costs:
            return costs
    return {}


def rule_sets() -> dict[str, list[Rule]]:
    """Every rule set by name, those of the files beside this one included."""
    package = importlib.import_module(__package__)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{__package__}.{module.name}")
    return _rules


def find_kernel(call: relax.Call, target: Target) -> Kernel:
    """Return the kernel of the first rule of the target that applies.

    Raises
    ------
    TargetError
        For an unknown rule set, or a call that no rule applies to.
    """
    known = rule_sets()
    for name in target.rules:
        if name not in known:
            raise TargetError(
                f"target {target.name!r}",
                f"there is no schedule rule set {name!r}",
                f"Use some of {', '.join(sorted(known))}, or register it with schedule_rule",
            )
        for rule in known[name]:
            kernel = rule(call, target)
            if kernel is not None:
                return kernel
    raise TargetError(
        f"target {target.name!r}",
        f"no rule of {', '.join(target.rules)} applies to {call.op.name}",
        'Add "generic" at the end of its rules',
    )
