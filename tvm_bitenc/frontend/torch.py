"""PyTorch to Relax, giving torch's own float32 numbers."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import tvm
from tvm import relax

from ..encoding import Encoding
from ..errors import BitencError, UnsupportedError
from ..op.multiply_add import multiply_add
from ..op.quantize import quantize
from ..op.registration import constant_value
from ..transform.rewrite import Graph, rewrite_calls


def from_torch(module_or_exported_program, example_args: Sequence | None = None) -> tvm.IRModule:
    """Import a torch model.

    Parameters
    ----------
    module_or_exported_program : torch.nn.Module or torch.export.ExportedProgram
        A module is switched to eval mode for the export and back afterwards.
    example_args : sequence of torch.Tensor
        Positional arguments of the module, or its only one; they fix the input shapes. Not needed
        for an exported program.

    Returns
    -------
    tvm.IRModule
        With a function `main`, weights bound in.

    Raises
    ------
    UnsupportedError
        If torch can't export the model, TVM can't import it, it was exported in training mode,
        or one of its inputs or weights is no float32.
    """
    try:
        import torch
    except ImportError:
        raise BitencError(
            "from_torch", "torch isn't installed", "pip install 'tvm-bitenc[torch]'"
        ) from None
    from tvm.relax.frontend.torch import from_exported_program

    program = module_or_exported_program
    if isinstance(program, torch.nn.Module):
        program = _export(program, example_args)
    if not isinstance(program, torch.export.ExportedProgram):
        raise BitencError(
            "from_torch", f"{type(program).__name__} is no model", "Give a torch.nn.Module"
        )
    inputs = (node for node in program.graph.nodes if node.op == "placeholder")
    _check_float32((node.name, node.meta.get("val")) for node in inputs)
    try:
        with _without_torchs_own_warnings():
            mod = from_exported_program(
                program, keep_params_as_input=False, custom_convert_map=_converters()
            )
    except BitencError:
        raise
    except Exception as error:  # TVM's importer has no common class of errors.
        raise UnsupportedError(
            "from_torch", f"TVM can't import it: {_first_line(error)}", "Change that op"
        ) from error
    return rewrite_calls(mod, _constant_parameters)


def _export(module, example_args: Sequence | None):
    import torch

    if example_args is None:
        raise BitencError(
            "from_torch", "a module needs example_args", "Give a tuple of example inputs"
        )
    # A lone tensor is a sequence as well: of its rows.
    lone = isinstance(example_args, torch.Tensor)
    arguments = (example_args,) if lone else tuple(example_args)
    _check_float32((f"example_args[{i}]", value) for i, value in enumerate(arguments))
    _check_float32(module.named_parameters())
    modes = [(part, part.training) for part in module.modules()]
    try:
        with _without_torchs_own_warnings():
            return torch.export.export(module.eval(), arguments)
    except Exception as error:  # torch.export has no common class of errors.
        raise UnsupportedError(
            "from_torch",
            f"torch.export fails: {_first_line(error)}",
            "Make torch.export.export(module, example_args) work first",
        ) from error
    finally:
        for part, training in modes:
            part.training = training


def _check_float32(values: Iterable[tuple[str, object]]) -> None:
    """Refuse other floating dtypes; integers, as in indices and counters, may pass."""
    for name, value in values:
        dtype = getattr(value, "dtype", None)
        if getattr(dtype, "is_floating_point", False) and str(dtype) != "torch.float32":
            raise UnsupportedError(
                f"from_torch: {name}",
                f"is {dtype}, and only float32 is compiled",
                "Convert model and inputs with .float()",
            )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [repr(error)]
    return lines[0].removesuffix(".")


@contextmanager
def _without_torchs_own_warnings() -> Iterator[None]:
    """Drop what torch.export says about its own calls of its own deprecated class."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
        yield


def _converters() -> dict:
    return {
        "bitenc_quantize.default": _quantize,
        "batch_norm.default": _batch_norm,
        "_native_batch_norm_legit_no_training.default": _batch_norm,
        "_native_batch_norm_legit_functional.default": _refuse_training,
        "native_dropout.default": _refuse_training,
    }


def _refuse_training(node, _importer) -> relax.Var:
    raise UnsupportedError(
        f"{node.target.__name__.split('.')[0]} of layer {_layer_name(node)!r}",
        "is in training mode",
        "Export the model after model.eval()",
    )


def _layer_name(node) -> str:
    """Path of the module that a node belongs to, e.g. ``features.3``."""
    stack = (node.meta.get("nn_module_stack") or {}).values()
    # A class with a leading underscore is a part of its layer, not a layer.
    paths = [path for path, kind in stack if not str(kind).split(".")[-1].startswith("_")]
    return str(paths[-1]) if paths else ""


def _quantize(node, importer) -> relax.Var:
    """`bitenc::bitenc_quantize`, as the layers of `tvm_bitenc.nn` call it."""
    x, scale, zero_point, bits, axis, rounding = importer.retrieve_args(node)
    call = quantize(x, _placeholder(int(bits), str(rounding)), int(axis), _layer_name(node))
    return importer.block_builder.emit(relax.Call(call.op, [x, scale, zero_point], call.attrs))


def _placeholder(bits: int, rounding: str) -> Encoding:
    """An encoding for its attributes; scale and zero point are tensors of the graph."""
    return Encoding(bits, 1.0, 0.0, rounding=rounding)


def _batch_norm(node, importer) -> relax.Var:
    """Batch-norm in eval mode as torch computes it on every vector CPU: x * alpha + beta.

    ``alpha = gamma * (1 / sqrt(var + eps))`` and ``beta = bias - mean * alpha``, in float32, and
    both products with a sum are rounded once: torch's kernel is compiled with such instructions.
    """
    x, gamma, bias, mean, variance, *rest = importer.retrieve_args(node)
    training = node.target.__name__ == "batch_norm.default" and rest[0]
    if training:
        _refuse_training(node, importer)
    eps = float(rest[-1] if "no_training" in node.target.__name__ else rest[2])
    emit, one = importer.block_builder.emit, relax.const(1.0, "float32")
    deviation = emit(relax.op.sqrt(emit(relax.op.add(variance, relax.const(eps, "float32")))))
    alpha = emit(relax.op.divide(one, deviation))
    if gamma is not None:
        alpha = emit(relax.op.multiply(alpha, gamma))
    if bias is None:
        bias = relax.const(np.zeros(int(mean.ty.shape[0]), np.float32))
    beta = emit(multiply_add(emit(relax.op.negative(mean)), alpha, bias))
    shape = (1, -1, *[1] * (len(x.ty.shape) - 2))
    result = emit(
        multiply_add(x, *(emit(relax.op.reshape(factor, shape)) for factor in (alpha, beta)))
    )
    if node.target.__name__.startswith("_native"):
        return emit(relax.Tuple([result]))
    return result


def _constant_parameters(call: relax.Call, graph: Graph) -> relax.Expr | None:
    """Put the constants of scale and zero point, parameters while importing, into the call."""
    if getattr(call.op, "name", "") != "bitenc.quantize":
        return None
    arguments = [call.args[0], *map(graph.definition, call.args[1:])]
    if all(constant_value(argument) is not None for argument in arguments[1:]):
        return relax.Call(call.op, arguments, call.attrs)
    return None
