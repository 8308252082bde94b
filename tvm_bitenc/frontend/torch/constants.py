"""Which values of an exported program depend on its parameters alone, computed by torch itself.

A weight is often prepared for its quantizer by functions whose last bits depend on who computes
them: a hyperbolic tangent, a mean over filters. Torch computes them once, while importing, and the
quantizer then reads torch's own numbers.
"""

from __future__ import annotations

import operator

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg

from .names import base_name, op_base_name
from .operators import quantizers

# Ops that make levels of numbers. What follows them stays in the graph as well, for the compiler to
# see the levels.
_SPELT = ("round", "floor", "ceil", "trunc", "sign", "sgn", "where", "ge", "gt", "le", "lt")
QUANTIZERS = frozenset([*_SPELT, *map(op_base_name, quantizers.OPERATORS)])
# Ops that the compiler evaluates itself, to the same numbers: a spelling may begin with them.
_ARITHMETIC = ("add", "sub", "mul", "div", "neg", "abs", "sqrt", "reciprocal", "minimum", "maximum")
_CLIPS = ("relu", "clamp", "clamp_min", "clamp_max", "hardtanh")
EXACT = frozenset([*_ARITHMETIC, *_CLIPS, "view", "permute", "clone", "alias", "detach"])
# Ops that choose among levels or add them up. The compiler doesn't follow them, so it gets torch's
# values, and finds the levels in those.
CHOOSING = frozenset(
    ["argmin", "argmax", "min", "max", "sum", "mean", "gather", "bucketize", "searchsorted"]
)


def constant_values(program: ExportedProgram) -> dict[Node, object]:
    """Values of the nodes that depend on parameters, buffers and numbers alone.

    A buffer that the program changes is no constant.
    """
    values = dict(_parameters(program))
    with torch.no_grad():
        for node in program.graph.nodes:
            if node.op != "call_function" or _is_random(node):
                continue
            if all(argument in values for argument in node.all_input_nodes):
                arguments, options = map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = node.target(*arguments, **options)
    return values


def foldable(values: dict[Node, object]) -> dict[Node, torch.Tensor]:
    """Those of `constant_values` that torch must compute: before any quantizer, all but the ops
    that the compiler evaluates itself, in float32; and behind one, what chooses among levels.
    """
    quantized: set[Node] = set()
    for node in values:
        if base_name(node) in QUANTIZERS or any(i in quantized for i in node.all_input_nodes):
            quantized.add(node)
    return {
        node: value
        for node, value in values.items()
        if node.op == "call_function"
        and isinstance(value, torch.Tensor)
        and (_chooses(node) if node in quantized else not _is_evaluated(node, value))
    }


def _is_evaluated(node: Node, value: torch.Tensor) -> bool:
    """Whether the compiler computes the same value."""
    return value.dtype == torch.float32 and base_name(node) in EXACT


def _chooses(node: Node) -> bool:
    """Whether a node is, or is a result of, an op of `CHOOSING`."""
    maker = node.args[0] if node.target is operator.getitem else node
    return isinstance(maker, Node) and base_name(maker) in CHOOSING


def _parameters(program: ExportedProgram):
    signature = program.graph_signature
    tensors = {**program.state_dict, **program.constants}
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    changing = set(signature.buffers_to_mutate.values())
    for node in program.graph.nodes:
        name = names.get(node.name) if node.op == "placeholder" else None
        if name is not None and name not in changing:
            yield node, tensors[name]


def _is_random(node: Node) -> bool:
    if node.target is operator.getitem:
        return False
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
