"""PyTorch to Relax, giving torch's own float32 numbers."""

from __future__ import annotations

from collections.abc import Sequence

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
        Positional arguments of the module; they fix the input shapes. Not needed for an exported
        program.

    Returns
    -------
    tvm.IRModule
        With a function `main`, weights bound in.

    Raises
    ------
    UnsupportedError
        If torch can't export the model, or TVM can't import it.
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
    try:
        mod = from_exported_program(
            program, keep_params_as_input=False, custom_convert_map=_converters()
        )
    except (AssertionError, NotImplementedError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise UnsupportedError(
            "from_torch", f"TVM can't import it: {reason}", "Change that op"
        ) from error
    return rewrite_calls(mod, _constant_parameters)


def _export(module, example_args: Sequence | None):
    import torch

    if example_args is None:
        raise BitencError(
            "from_torch", "a module needs example_args", "Give a tuple of example inputs"
        )
    training = module.training
    try:
        return torch.export.export(module.eval(), tuple(example_args))
    except Exception as error:  # torch.export has no common class of errors.
        raise UnsupportedError(
            "from_torch",
            f"torch.export fails: {str(error).strip().splitlines()[0]}",
            "Make torch.export.export(module, example_args) work first",
        ) from error
    finally:
        module.train(training)


def _converters() -> dict:
    return {
        "bitenc_quantize.default": _quantize,
        "batch_norm.default": _batch_norm,
        "_native_batch_norm_legit_no_training.default": _batch_norm,
    }


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
        raise NotImplementedError("batch_norm in training mode: export the model in eval mode")
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
