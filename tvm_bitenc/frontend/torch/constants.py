"""Which values of an exported program depend on its parameters alone, computed by torch itself.

A weight is often prepared for its quantizer by functions whose last bits depend on who computes
them: a hyperbolic tangent, a mean over filters, a maximum. Torch computes them once, while importing,
and the quantizer then reads its own numbers.
"""

from __future__ import annotations

import operator

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg

from ...errors import UnsupportedError
from .names import base_name

# Ops that make levels of numbers. They and what follows them stay in the graph, for the compiler to
# see the levels.
QUANTIZERS = frozenset(
    """round floor ceil trunc sign sgn where ge gt le lt heaviside bitenc_quantize
    fake_quantize_per_tensor_affine_cachemask fake_quantize_per_channel_affine_cachemask
    _fake_quantize_per_tensor_affine_cachemask_tensor_qparams
    quantize_per_tensor dequantize_per_tensor quantize_per_channel dequantize_per_channel""".split()
)


def constant_values(program: ExportedProgram) -> dict[Node, object]:
    """Values of the nodes that depend on parameters, buffers and numbers alone.

    Raises
    ------
    UnsupportedError
        If the program changes one of its buffers, as observers and training do.
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
    """Those of `constant_values` that hold float32 and come before any quantizer."""
    quantized: set[Node] = set()
    for node in values:
        if base_name(node) in QUANTIZERS or any(i in quantized for i in node.all_input_nodes):
            quantized.add(node)
    return {
        node: value
        for node, value in values.items()
        if node.op == "call_function"
        and node not in quantized
        and isinstance(value, torch.Tensor)
        and value.dtype == torch.float32
    }


def _parameters(program: ExportedProgram):
    signature = program.graph_signature
    if signature.buffers_to_mutate:
        names = ", ".join(sorted(set(signature.buffers_to_mutate.values())))
        raise UnsupportedError(
            f"from_torch: buffers {names}",
            "change with every run",
            "Call model.eval(), and switch observers off (torch.ao.quantization.disable_observer)",
        )
    tensors = {**program.state_dict, **program.constants}
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            yield node, tensors[names[node.name]]


def _is_random(node: Node) -> bool:
    if node.target is operator.getitem:
        return False
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
