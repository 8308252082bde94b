"""``torch.compile(model, backend="bitenc")``.

An installed tvm-bitenc is found by its entry point. Without one, in a checkout, importing this
module makes the backend known.

`torch.ao.quantization.FakeQuantize` modules ask their buffers what to do, and torch.compile cuts a
model apart there. Compile such a model within ``with exportable(model):`` of
`tvm_bitenc.frontend.torch.modules`.

A graph is compiled ahead of time, with its parameters as constants, once for each shape of inputs
that it is called with. If a parameter has changed since, it is compiled again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn
from torch._dynamo.backends.registry import register_backend
from torch._dynamo.utils import get_static_address_type
from torch.autograd.function import FunctionCtx

from ..compiled import CompiledModel
from ..compiler import build
from ..errors import BitencError, UnsupportedError
from ..explain import explain
from ..report import Report
from .torch import from_torch
from .torch.fake_tensors import tell_shapes

NAME = "bitenc"
WHERE = f"torch.compile backend {NAME!r}"
OPTIONS = ("target", "strategy", "threads", "allow_float")

tell_shapes()  # Here, because torch.compile loads a backend before it traces a model.


def bitenc(
    graph_module: fx.GraphModule,
    example_inputs: Sequence,
    *,
    options: Mapping[str, object] | None = None,
) -> Callable[..., tuple[Tensor, ...]]:
    """Compile one graph of `torch.compile`.

    Parameters
    ----------
    graph_module : torch.fx.GraphModule
    example_inputs : sequence of torch.Tensor or int
        Parameters of the model are among them.
    options : mapping, optional
        `torch.compile`'s ``options``: ``target``, ``strategy`` and ``threads`` of
        `tvm_bitenc.build`, and ``allow_float=True`` to compile graphs without any quantized layer.

    Raises
    ------
    UnsupportedError
        For a graph in which nothing is quantized, and whatever `from_torch` and `build` refuse.
        `torch.compile` wraps it in an error of its own.
    """
    options = dict(options or {})
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise BitencError(f"{WHERE}: options {unknown}", "aren't known", f"Use {OPTIONS}")
    graph = _Graph(graph_module, [_is_parameter(value) for value in example_inputs], options)
    if all(isinstance(value, Tensor) for value in example_inputs):
        graph.compiled(example_inputs)  # With symbolic sizes, wait for those of the first call.
    return graph


def _is_parameter(value: object) -> bool:
    """Whether an input is a parameter or buffer of the model, the same tensor in every call."""
    return isinstance(value, nn.Parameter) or (
        isinstance(value, Tensor) and get_static_address_type(value) is not None
    )


class _Graph:
    """A graph of `torch.compile` and its libraries, one for each shape."""

    def __init__(self, graph_module: fx.GraphModule, is_parameter: list[bool], options: dict):
        self.graph_module, self.is_parameter = graph_module, is_parameter
        self.allow_float = bool(options.pop("allow_float", False))
        self.options = options
        self.libraries: dict[tuple, tuple[tuple, CompiledModel]] = {}

    def __call__(self, *inputs) -> tuple[Tensor, ...]:
        if torch.is_grad_enabled():
            return _Inference.apply(self._run, *inputs)
        return self._run(*inputs)

    def _run(self, *inputs) -> tuple[Tensor, ...]:
        results = self.compiled(inputs)(*self._variables(inputs))
        results = results if isinstance(results, tuple) else (results,)
        return tuple(map(torch.from_numpy, results))

    def compiled(self, inputs: Sequence) -> CompiledModel:
        """Return the library for inputs like these, and these parameters."""
        variables = self._variables(inputs)
        others = [v for v in inputs if not isinstance(v, Tensor)]
        shapes = (*(tuple(v.shape) for v in variables), *map(int, others))
        version = tuple(map(_version, self._parameters(inputs)))
        known, library = self.libraries.get(shapes, (None, None))
        if library is None or known != version:
            library = self._compile(inputs, variables)
            self.libraries[shapes] = version, library
        return library

    def _compile(self, inputs: Sequence, variables: list[Tensor]) -> CompiledModel:
        for value in variables:
            if value.dtype == torch.float64 and value.ndim == 0:
                raise UnsupportedError(
                    WHERE, "a Python float is an input of the graph", "Compile with dynamic=False"
                )
            if value.device.type != "cpu":
                raise UnsupportedError(
                    WHERE, f"an input is on {value.device}", "Move model and inputs to the CPU"
                )
        constants = [
            value if known or not isinstance(value, Tensor) else None
            for value, known in zip(inputs, self.is_parameter)
        ]
        with torch.no_grad():
            mod = from_torch(_Bound(self.graph_module, constants), [v.detach() for v in variables])
        report = explain(mod)
        if not report.layers and not self.allow_float:
            raise UnsupportedError(WHERE, _nothing_quantized(report), CURE)
        return build(mod, **self.options)

    def _variables(self, inputs: Sequence) -> list[Tensor]:
        pairs = zip(inputs, self.is_parameter)
        return [value for value, known in pairs if isinstance(value, Tensor) and not known]

    def _parameters(self, inputs: Sequence) -> list[Tensor]:
        return [value for value, known in zip(inputs, self.is_parameter) if known]


CURE = (
    "Quantize its layers (tvm_bitenc.nn, fake-quantize, tvm_bitenc.quantize); if the model is "
    "quantized, fullgraph=True shows where torch.compile cuts it apart (at FakeQuantize modules: "
    "see tvm_bitenc.frontend.dynamo); "
    "options={'allow_float': True} compiles float graphs as well"
)


def _nothing_quantized(report: Report) -> str:
    layers = "; ".join(f"{layer.name}: {layer.reason}" for layer in report.float_layers[:3])
    if not layers:
        return "the graph has no layer at all"
    return f"nothing in the graph is quantized ({layers})"


def _version(tensor: Tensor) -> tuple:
    """What changes when the values of a tensor do."""
    return tensor.data_ptr(), None if tensor.is_inference() else tensor._version


class _Bound(nn.Module):
    """A graph whose parameters are constants.

    Parameters
    ----------
    graph_module : torch.fx.GraphModule
    constants : list of Tensor, int or None
        One per input of the graph; None for those that stay inputs.
    """

    def __init__(self, graph_module: fx.GraphModule, constants: list):
        super().__init__()
        self.graph_module, self.constants = graph_module, constants
        for i, value in enumerate(constants):
            if isinstance(value, Tensor):
                self.register_buffer(f"constant_{i}", value.detach())

    def forward(self, *variables: Tensor) -> Tensor | tuple[Tensor, ...]:
        left = iter(variables)
        return self.graph_module(
            *(
                next(left) if value is None else getattr(self, f"constant_{i}", value)
                for i, value in enumerate(self.constants)
            )
        )


class _Inference(torch.autograd.Function):
    """Runs a graph forward, and says why there is no way back."""

    @staticmethod
    def forward(ctx: FunctionCtx, run: Callable[..., Any], *inputs: Tensor) -> Any:
        return run(*inputs)

    @staticmethod
    def backward(ctx: FunctionCtx, *_gradients: Tensor) -> NoReturn:
        raise UnsupportedError(
            WHERE, "computes no gradients", "Train the model uncompiled; compile it for inference"
        )


if not entry_points(group="torch_dynamo_backends", name=NAME):
    register_backend(bitenc, name=NAME)
