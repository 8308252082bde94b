"""PyTorch to Relax, giving torch's own float32 numbers.

==================  ==========================================================================
`decompositions`    which operators torch writes in others first
`constants`         which values of a program depend on its parameters alone
`importer`          the walk over a program: nothing passes unread or unchecked
`node_call`         one call of an operator: its arguments by name, and whether all were read
`operators`         a converter for each operator that is taken: an explicit table
`checks`            what a converter gives against what torch says of it
`sizes`             torch's symbolic sizes in Relax
`names`             names of layers
`fake_tensors`      shapes of fake-quantize where a size is symbolic
`modules`           observers and fake-quantize modules, as an export needs them
`files`             exported programs in files
`archive`           the members of such a file that are checked, and written again for torch
`schema`            what their documents may say; `expressions`: what their sizes may be
==================  ==========================================================================

TVM's importer of PyTorch gives its frame; its converters aren't used: too many overlook an argument
or a dtype.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

import tvm

from ...errors import BitencError, UnsupportedError, first_line
from ...importing import without_collections

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram


def from_torch(
    module_or_exported_program: nn.Module | ExportedProgram, example_args: Sequence | None = None
) -> tvm.IRModule:
    """Import a torch model.

    Its quantizers may be layers of `tvm_bitenc.nn`, fake-quantize ops and modules, the
    quantize/dequantize ops of PT2E, or plain arithmetic.

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
        If torch can't export the model, an operator or one of its arguments isn't taken, it was
        exported in training mode or with observers at work, or one of its inputs or weights is of
        another floating dtype than float32.

    Notes
    -----
    docs/operators-torch.md lists the operators that are taken. Inputs are never changed, by
    in-place operators either. An index that is computed when the model runs and lies outside of
    its axis, for which torch raises an error, means the nearest index inside.
    """
    torch = need_torch()
    program = module_or_exported_program
    if isinstance(program, torch.nn.Module):
        program = _export(program, example_args)
    if not isinstance(program, torch.export.ExportedProgram):
        raise BitencError(
            "from_torch", f"{type(program).__name__} is no model", "Give a torch.nn.Module"
        )
    constants = program.graph_signature.inputs_to_lifted_tensor_constants
    inputs = program.graph.find_nodes(op="placeholder")
    _check_float32((n.name, n.meta.get("val")) for n in inputs if n.name not in constants)
    return _imported(program)


def need_torch() -> ModuleType:
    """Return torch, or say how to install it."""
    try:
        import torch
    except ImportError:
        raise BitencError(
            "from_torch", "torch isn't installed", "pip install 'tvm-bitenc[torch]'"
        ) from None
    return torch


def _export(module: nn.Module, example_args: Sequence | None) -> ExportedProgram:
    import torch

    from .fake_tensors import tell_shapes
    from .modules import exportable

    tell_shapes()
    if example_args is None:
        raise BitencError(
            "from_torch", "a module needs example_args", "Give a tuple of example inputs"
        )
    # A lone tensor is a sequence as well: of its rows.
    lone = isinstance(example_args, torch.Tensor)
    arguments = (example_args,) if lone else tuple(example_args)
    _check_float32((f"example_args[{i}]", value) for i, value in enumerate(arguments))
    _check_float32(module.named_parameters())
    with without_collections():
        import torch._dynamo  # As torch.export does.
    try:
        with exportable(module), _without_torchs_own_warnings():
            return torch.export.export(module, arguments)
    except BitencError:
        raise
    except Exception as error:  # torch.export has no common class of errors.
        raise UnsupportedError(
            "from_torch",
            f"torch.export fails: {first_line(error)}",
            "Make torch.export.export(module, example_args) work first",
        ) from error


def _imported(program: ExportedProgram) -> tvm.IRModule:
    from .decompositions import decompositions
    from .importer import Importer

    try:
        with _without_torchs_own_warnings():
            return Importer(program.run_decompositions(dict(decompositions()))).imported()
    except BitencError:
        raise
    except Exception as error:  # TVM's importer has no common class of errors.
        raise UnsupportedError(
            "from_torch", f"TVM can't import it: {first_line(error)}", "Change that op"
        ) from error


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


@contextmanager
def _without_torchs_own_warnings() -> Iterator[None]:
    """Drop what torch.export says about its own calls of its own deprecated class."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
        yield
