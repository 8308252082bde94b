"""All rule sets, and what a target gets of them."""

from __future__ import annotations

from tvm import relax

from ..errors import TargetError
from ..kernel.isa import Isa
from ..kernel.kernel import Kernel
from ..layer import ConvLayer
from ..target import Target
from . import avx2, avx512, dotprod, generic, i8mm, neon, scalar
from .rule import RuleSet, Space

RULE_SETS: tuple[RuleSet, ...] = (
    avx512.RULES,
    avx2.RULES,
    i8mm.RULES,
    dotprod.RULES,
    neon.RULES,
    scalar.RULES,
    generic.RULES,
)


def rule_sets_of(target: Target) -> tuple[RuleSet, ...]:
    """Rule sets of a target, in the order in which they are tried.

    Raises
    ------
    TargetError
        If it names one that isn't there.
    """
    known = {rules.name: rules for rules in RULE_SETS}
    found: list[RuleSet] = []
    for item in target.rules:
        rules = known.get(item) if isinstance(item, str) else item
        if not isinstance(rules, RuleSet):
            raise TargetError(
                f"target {target.name!r}",
                f"there is no schedule rule set {item!r}",
                f"Use some of {', '.join(sorted(known))}, or pass a RuleSet of that name to"
                " load_target(..., rule_sets=)",
            )
        found.append(rules)
    return tuple(found)


def find_kernel(call: relax.Call, target: Target) -> Kernel:
    """Return the kernel of the first rule of the target that applies.

    Raises
    ------
    TargetError
        For an unknown rule set, or a call that no rule applies to.
    """
    for rules in rule_sets_of(target):
        for rule in rules.rules:
            kernel = rule(call, target)
            if kernel is not None:
                return kernel
    raise TargetError(
        f"target {target.name!r}",
        f"no rule of {', '.join(target.rule_names)} applies to {call.op.name}",
        'Add "generic" at the end of its rules',
    )


def find_space(call: relax.Call, target: Target) -> Space | None:
    """Return the space of the first rule set of the target that has one for this call."""
    found = (rules.space(call, target) for rules in rule_sets_of(target) if rules.space)
    return next((space for space in found if space is not None), None)


def strategy_costs(layer: ConvLayer, target: Target) -> dict[str, float]:
    """Costs of a layer by strategy, by the first rule set of the target that knows them."""
    for rules in (*rule_sets_of(target), generic.RULES):
        costs = rules.costs(layer, target) if rules.costs else None
        if costs:
            return costs
    return {}


def isa_of(target: Target) -> Isa | None:
    """Return what the first rule set of vector instructions that fits a target offers."""
    found = (rules.isa(target) for rules in rule_sets_of(target) if rules.isa)
    return next((isa for isa in found if isa is not None), None)


def best_macs(target: Target, weight_bits: int, act_bits: int) -> dict[str, float]:
    """Multiply-accumulates per cycle that the target's core reaches at best, by strategy.

    Parameters
    ----------
    target : Target
    weight_bits, act_bits : int

    Returns
    -------
    dict of str to float
        Empty where none of its rule sets has vector instructions that it offers.
    """
    for rules in rule_sets_of(target):
        isa = rules.isa(target) if rules.isa else None
        if isa is not None:
            works = rules.best(weight_bits, act_bits, isa) if rules.best else {}
            products = 8 * isa.vector_bytes
            return {name: products / work.cycles(target.core) for name, work in works.items()}
    return {}


def own_features(target: Target) -> frozenset[str]:
    """CPU features of a target that rule sets from outside make kernels for."""
    return target.features & frozenset().union(*(r.features for r in rule_sets_of(target)))
