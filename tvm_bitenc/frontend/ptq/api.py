"""`quantize`: from a float network and calibration data to a quantized one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tvm

from ...errors import BitencError
from ...target import Target
from .progress import Progress, progress_of
from .settings import Settings, budget_of, pattern_list

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

    from .onnx_model import OnnxModel


def quantize(
    float_module: nn.Module | ModelProto | str | Path,
    calibration_batches: Iterable,
    weight_bits: int = 8,
    act_bits: int = 8,
    *,
    bits: str | Mapping[str, tuple[int, int]] | None = None,
    weight_bytes: int | None = None,
    latency: float | None = None,
    error: float | None = None,
    target: str | Path | Target = "native",
    shapes: Mapping[str, Sequence[int]] | None = None,
    first_last_bits: int | None = 8,
    skip: Iterable[str] = (),
    rounding: str = "bias",
    seed: int = 0,
    progress: bool | Progress = True,
    checkpoint: str | Path | None = None,
) -> nn.Module | tvm.IRModule:
    """Quantize a trained float network without training (post-training quantization).

    Convolutions and dense layers get symmetric weights with one scale per output channel, and
    inputs on one grid per tensor: unsigned after a ReLU, else affine. Scales have the least squared
    error on the weights and on the calibration data. Batch-norms are folded before. What else the
    network does, squeeze-and-excite included, stays float; `report_of` lists it.

    Parameters
    ----------
    float_module : torch.nn.Module, path or onnx.ModelProto
        A module in eval mode that torch.fx can trace, or an ONNX model.
    calibration_batches : iterable
        Inputs as the network will see them, some tens to hundreds: float32 tensors or arrays, or
        tuples of them. For ONNX also dictionaries by input name.
    weight_bits, act_bits : int
        1..8. With ``bits="auto"`` the most that a layer may get.
    bits : mapping or "auto", optional
        ``{layer: (weight_bits, act_bits)}`` for some layers, or "auto": chosen per layer under one
        of the three budgets.
    weight_bytes : int, optional
        Budget: size of all weight codes, packed without gaps. Activations keep `act_bits`.
    latency : float, optional
        Budget: cost of all layers by the target's cost model, as a share of what they cost with
        `weight_bits` and `act_bits` everywhere. Both kinds of bits are chosen.
    error : float, optional
        Budget: mean squared error on the calibration data, relative to the power, of the outputs
        and of the last layers in front of them; the weights get as small as it allows.
    target : str, Path or Target
        For `latency`, as in `tvm_bitenc.build`.
    shapes : mapping of str to sequence of int, optional
        For ONNX, as in `from_onnx`: input shapes of the result, by default those of the first
        calibration batch.
    first_last_bits : int or None
        Bits of layers that read the network's inputs, or that no other layer comes after. None:
        as all others.
    skip : iterable of str
        Layers to leave in float; names may have wildcards.
    rounding : {"nearest", "bias", "adaround"}
        How weights are rounded, and whether the bias takes up the mean error; see `rounding.py`.
        ``adaround`` trains 400 steps for each layer of up to 6 bits.
    seed : int
        The same seed, model and data give the same result.
    progress : bool or callable
        True shows a bar; a callable gets ``(done, total, description)`` after every step.
    checkpoint : path, optional
        JSON file of finished steps. A run that was interrupted goes on from it, with equal result.

    Returns
    -------
    torch.nn.Module or tvm.IRModule
        A torch module from a torch module, for `from_torch`; from ONNX a module for `build`.
        ``tvm_bitenc.frontend.ptq.report_of(result)`` has the error of every layer.

    Raises
    ------
    UnsupportedError
        For bits outside 1..8, or a module that can't be traced.
    BitencError
        For calibration data that is empty, has NaN or doesn't fit, a model in training mode, a
        budget that can't be met, a damaged or foreign checkpoint.
    """
    try:
        import torch
    except ImportError:
        raise BitencError(
            "quantize", "torch isn't installed", "pip install 'tvm-bitenc[torch]'"
        ) from None
    from .run import Run

    named = bits if isinstance(bits, Mapping) else {}
    settings = Settings(
        (weight_bits, act_bits), first_last_bits, dict(named), pattern_list(skip), rounding, seed
    )
    given = {"weight_bytes": weight_bytes, "latency": latency, "error": error}
    budget = budget_of(bits, given, target)
    if isinstance(float_module, torch.nn.Module):
        from .torch_model import TorchModel

        model: TorchModel | OnnxModel = TorchModel(float_module, calibration_batches)
    else:
        model = _onnx_model(float_module, calibration_batches, shapes)
    with progress_of(progress) as show:
        return Run(model, settings, show, checkpoint).result(budget)


def _onnx_model(
    float_module: ModelProto | str | Path,
    calibration_batches: Iterable,
    shapes: Mapping[str, Sequence[int]] | None,
) -> OnnxModel:
    if not isinstance(float_module, (str, Path)) and not hasattr(float_module, "graph"):
        kind = type(float_module).__name__
        raise BitencError(
            "quantize", f"{kind} is no model", "Give a torch.nn.Module, a path or a ModelProto"
        )
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise BitencError(
            "quantize", f"{error.name} isn't installed", "pip install onnx onnxruntime"
        ) from None
    from .onnx_model import OnnxModel

    return OnnxModel(float_module, calibration_batches, shapes)
