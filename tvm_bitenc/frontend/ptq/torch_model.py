"""A torch module as post-training quantization sees it: traced by torch.fx, batch-norms folded."""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.modules.conv import _ConvNd

from ...errors import BitencError, UnsupportedError, first_line
from .batches import checked_batches
from .checkpoint import hash_of
from .layer import Layer, QuantizedLayer
from .report import REPORT
from .steps import Step
from .torch_layers import InputQuantizer, integer_layer

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
LAYERS = (nn.Linear, *CONVOLUTIONS)
PRODUCTS = (operator.mul, operator.imul, torch.mul, "mul", "mul_")


class TorchModel:
    """A float module, its layers and its calibration data.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode; it isn't changed.
    batches : iterable
        Tensors or arrays, or tuples of them: arguments of one call each.

    Raises
    ------
    UnsupportedError
        If torch.fx can't trace it.
    BitencError
        If it is in training mode, or the batches don't fit it.
    """

    def __init__(self, module: nn.Module, batches: Iterable):
        training = [name or "the model" for name, part in module.named_modules() if part.training]
        if training:
            raise BitencError(
                "quantize", f"{training[0]} is in training mode", "Call model.eval() first"
            )
        _check_tensors([*module.named_parameters(), *module.named_buffers()])
        self.batches = [_arguments(i, batch) for i, batch in enumerate(checked_batches(batches))]
        self.graph_module = _traced(module)
        self.modules = dict(self.graph_module.named_modules())
        self.nodes = {node.name: node for node in self.graph_module.graph.nodes}
        self.inputs = [n.name for n in self.nodes.values() if n.op == "placeholder"]
        self._check_batches()
        (result,) = (node for node in self.nodes.values() if node.op == "output")
        self.outputs = [node.name for node in result.all_input_nodes]
        self.shapes = {
            name: tuple(value.shape)
            for name, value in self._run(self.graph_module, self.nodes, 0).items()
            if isinstance(value, Tensor)
        }
        self.outputs = [name for name in self.outputs if name in self.shapes]
        if not self.outputs:
            raise UnsupportedError("quantize", "no output of the model is a tensor", "Return one")
        self.layers, self.float_layers = self._layers()
        self.steps = self._steps()

    def _check_batches(self) -> None:
        required = [name for name in self.inputs if not self.nodes[name].args]
        for i, batch in enumerate(self.batches):
            if not len(required) <= len(batch) <= len(self.inputs):
                raise BitencError(
                    f"calibration batch {i}",
                    f"has {len(batch)} tensors, and the model takes {len(self.inputs)}",
                    "Give a tensor or a tuple of the model's arguments, without labels",
                )

    def key(self) -> str:
        """Hash of the network and its calibration data."""
        state = self.graph_module.state_dict()
        parts = [self.graph_module.code, *(str(part) for part in self.graph_module.children())]
        for name, value in state.items():
            parts += [name, value.numpy()]
        return hash_of([*parts, *(x.numpy() for batch in self.batches for x in batch)])

    def values(
        self, names: Sequence[str], quantized: Mapping[str, QuantizedLayer] | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """Tensors by name, batch by batch, with some layers quantized (none by default)."""
        module = self._with(quantized) if quantized else self.graph_module
        for i in range(len(self.batches)):
            yield self._run(module, names, i)

    def result(self, quantized: Mapping[str, QuantizedLayer], report: str) -> fx.GraphModule:
        """Return the quantized module; it shares nothing with the float one."""
        module = copy.deepcopy(self._with(quantized)).eval().requires_grad_(False)
        module.meta[REPORT] = report
        return module

    def _run(self, module: fx.GraphModule, names: Iterable[str], batch: int) -> dict:
        """Values of nodes by name."""
        recorder = _Recorder(module, set(names))
        try:
            with torch.no_grad():
                recorder.run(*self.batches[batch])
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise BitencError(
                f"calibration batch {batch}",
                f"doesn't run: {first_line(error)}",
                "Check its shapes and types",
            ) from error
        return recorder.found

    def _layers(self) -> tuple[list[Layer], list[tuple[str, str]]]:
        layers, left = [], []
        uses = Counter(n.target for n in self.nodes.values() if n.op == "call_module")
        for node in self.nodes.values():
            if node.op != "call_module":
                reason = _reason_of_function(node)
                if reason:
                    left.append((node.name, reason))
                continue
            part = self.modules[node.target]
            name = node.target if uses[node.target] == 1 else node.name
            reason = _reason_for_float(part)
            if reason:
                left.append((name, reason))
            elif isinstance(part, LAYERS):
                layers.append(_layer(name, node, part))
        return layers, left

    def _steps(self) -> list[Step]:
        layer_of = {layer.output: layer.name for layer in self.layers}
        return [
            Step(
                tuple(n.name for n in node.all_input_nodes if n.op != "get_attr"),
                (node.name,),
                layer_of.get(node.name, ""),
                node.target in PRODUCTS,
            )
            for node in self.nodes.values()
            if node.op not in ("placeholder", "output", "get_attr")
        ]

    def _with(self, quantized: Mapping[str, QuantizedLayer]) -> fx.GraphModule:
        """Return the graph with some layers quantized, and one quantizer per tensor and grid."""
        module = fx.GraphModule(self.graph_module, copy.deepcopy(self.graph_module.graph))
        nodes = {node.name: node for node in module.graph.nodes}
        quantizers: dict[tuple, fx.Node] = {}
        for one in quantized.values():
            node, source = nodes[one.layer.output], nodes[one.layer.input]
            grid = (source, one.act.bits, float(one.act.scale), float(one.act.zero_point))
            if grid not in quantizers:
                target = f"input_quantizers.{source.name}_{one.act.bits}"
                module.add_submodule(target, InputQuantizer(one.act, one.act_factor))
                with module.graph.inserting_after(source):
                    quantizers[grid] = module.graph.call_module(target, (source,))
            target = one.layer.name
            module.add_submodule(target, integer_layer(one))
            node.target, node.args, node.kwargs = target, (quantizers[grid],), {}
        module.graph.lint()
        module.recompile()
        return module


def _arguments(i: int, batch: tuple | dict) -> tuple[Tensor, ...]:
    if isinstance(batch, dict):
        raise BitencError(
            f"calibration batch {i}", "is a dictionary", "Give a tuple of the model's arguments"
        )
    return tuple(torch.as_tensor(part).detach() for part in batch)


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps the values of some nodes."""

    def __init__(self, module: fx.GraphModule, names: set[str]):
        super().__init__(module)
        self.names = names
        self.found: dict[str, Any] = {}

    def run_node(self, node: fx.Node):
        value = super().run_node(node)
        if node.name in self.names:
            # A later op may work in place.
            self.found[node.name] = value.clone() if isinstance(value, Tensor) else value
        return value


def _check_tensors(tensors: Iterable[tuple[str, Tensor]]) -> None:
    for name, tensor in tensors:
        if tensor.device.type != "cpu":
            raise BitencError(
                f"quantize: {name}", f"is on {tensor.device}", "Move the model with .cpu()"
            )
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise BitencError(
                f"quantize: {name}", f"is {tensor.dtype}", "Convert the model with .float()"
            )


def _traced(module: nn.Module) -> fx.GraphModule:
    try:
        traced = fuse(module)
    except Exception as error:  # torch.fx has no common class of errors.
        raise UnsupportedError(
            "quantize",
            f"torch.fx can't trace the model: {first_line(error)}",
            "Keep data-dependent Python out of forward, or export to ONNX and quantize the file",
        ) from error
    assert isinstance(traced, fx.GraphModule)  # Torch declares any module.
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def _reason_of_function(node: fx.Node) -> str:
    name = getattr(node.target, "__name__", str(node.target))
    if node.op == "call_function" and (name.startswith("conv") or name == "linear"):
        return "it is a function, not a module: use torch.nn's layer"
    if node.op == "call_function" and name in ("matmul", "bmm", "scaled_dot_product_attention"):
        return "a product of two activations isn't quantized"
    return ""


def _reason_for_float(part: nn.Module) -> str:
    """Why a module stays float, empty if it needn't or isn't a layer."""
    kind = type(part).__name__
    if isinstance(part, nn.Linear):
        return ""
    if isinstance(part, CONVOLUTIONS):
        if part.padding_mode != "zeros":
            return f"padding with {part.padding_mode!r} has no integer form"
        if part.transposed and part.groups > 1:
            return "a transposed convolution in groups isn't quantized"
        return ""
    if isinstance(part, (_ConvNd, nn.Bilinear)):
        return f"{kind} isn't quantized"
    if isinstance(part, (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)):
        return f"{kind} isn't quantized"
    return ""


def _layer(name: str, node: fx.Node, part: nn.Linear | _ConvNd) -> Layer:
    (source,) = node.all_input_nodes
    weight, bias = part.weight.detach().numpy(), part.bias
    if isinstance(part, _ConvNd) and part.transposed:
        weight = weight.swapaxes(0, 1)
    dense = Layer(
        name,
        source.name,
        node.name,
        np.ascontiguousarray(weight, np.float32),
        None if bias is None else bias.detach().numpy(),
    )
    if isinstance(part, nn.Linear):
        return dense
    return replace(
        dense,
        strides=part.stride,
        padding=_padding(part),
        dilation=part.dilation,
        groups=part.groups,
        output_padding=part.output_padding if part.transposed else None,
    )


def _padding(conv: _ConvNd) -> tuple[int, ...]:
    """Padding in front of every spatial axis, then behind them."""
    if isinstance(conv.padding, str):
        if conv.padding == "valid":
            return (0,) * 2 * len(conv.kernel_size)
        totals = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size)]
        before = [total // 2 for total in totals]
        return (*before, *(total - first for total, first in zip(totals, before)))
    return (*conv.padding, *conv.padding)
