"""Reads a report off a module while passes work on it; no code is generated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import tvm
from tvm import relax

from ..accelerator import Accelerator
from ..encoding import WORD_BITS, are_powers_of_two
from ..errors import UnsupportedError
from ..layer import ConvLayer
from ..op.matmul import branch_matmul_op
from ..op.packed import conv_layer_of, packed_conv2d_op, packed_max_pool2d_op
from ..op.quantize import encoding_of, quantize_op
from ..op.registration import describe, is_call_to
from ..records.decision import origin_of
from ..report.data import FloatLayer, FloatOps, LayerRow
from ..report.report import Report
from ..target import ACCELERATOR, Target, load_target
from ..te.function import sizes_of
from ..transform.analysis.float32 import evaluate, op_name
from ..transform.canonicalize import BY_VALUE
from ..transform.lower import is_layer, lower_layer, reason_for_float
from ..transform.lower.operands import weight_quantizer
from ..transform.pipeline import Pipeline, default_pipeline
from ..transform.rewrite import Graph, is_external, merge_equal, rewrite_calls
from ..transform.visit import visit_calls
from ..vta.counters import predicted_layers
from ..vta.offloaded import Offloaded, program_of, window_of
from ..vta.program import Program
from ..vta.region import Region, region_of
from ..vta.work import Cycles, work_of
from .edges import NO_ROWS, Rows, edges_of
from .reasons import diagnose

FLOAT_BYTES = 4
# Ops that only move or reinterpret numbers.
_SILENT = (
    "astype reshape permute_dims expand_dims squeeze concat split strided_slice full zeros_like "
    "ones_like full_like broadcast_to"
)
SILENT = frozenset(f"relax.{name}" for name in _SILENT.split(" "))


def explain(
    mod: tvm.IRModule, target: str | Path | tvm.target.Target | Target = "native"
) -> Report:
    """Say what each layer becomes, without compiling.

    Parameters
    ----------
    mod : tvm.IRModule
        As for `tvm_bitenc.build`.
    target
        As for `tvm_bitenc.build`; the strategies depend on it.

    Returns
    -------
    Report
        A layer that `build` would refuse is listed among the float ones, with the error as its
        reason.
    """
    target = load_target(target)
    observer = Observer(target)
    refused: list[FloatLayer] = []
    passes = default_pipeline(target).until("bitenc.Schedule")
    passes = Pipeline(
        [_lenient_lowering(refused) if p.info.name == "bitenc.Lower" else p for p in passes.passes]
    )
    observer("bitenc.Schedule", passes.run(mod, observer))
    return observer.report(refused)


class Observer:
    """Called in front of every pass; what it saw becomes a report.

    Parameters
    ----------
    target : Target
    """

    def __init__(self, target: Target):
        self.target = target
        self.float_layers: list[FloatLayer] = []
        self.notes: list[str] = []
        self.layers: list[LayerRow] = []
        self.float_ops: list[FloatOps] = []
        self.edges: list[tuple[int, int]] = []
        self.programs: list[Program] = []

    def __call__(self, name: str, mod: tvm.IRModule) -> None:
        """Look at a module in front of the pass `name`."""
        if name == "bitenc.Lower":
            self.float_layers, self.notes = _before_lowering(mod)
        elif name == "bitenc.Schedule":
            self.layers, self.float_ops, self.programs = _before_scheduling(mod, self.target)
            self.edges = edges_of(mod["main"], lambda call: _rows_of(call, mod, self.target))

    def report(self, refused: Sequence[FloatLayer] = ()) -> Report:
        """Return the report of what was seen."""
        left = [*self.float_layers, *refused]
        accelerator = self.target.accelerator
        rates = (0, 0)
        if accelerator is not None:
            rates = accelerator.macs_per_cycle, WORD_BITS // 8
        return Report(
            *(self.target.name, self.layers, left, self.float_ops, self.notes, *rates, self.edges),
            programs=len(self.programs),
            cpu_bytes=sum(program.cpu_bytes for program in self.programs),
        )


def _before_lowering(mod: tvm.IRModule) -> tuple[list[FloatLayer], list[str]]:
    left: list[FloatLayer] = []
    notes: list[str] = []

    def note(call: relax.Call, graph: Graph) -> None:
        if not is_layer(call):
            return
        reason = reason_for_float(call, graph)
        if reason:
            left.append(
                FloatLayer(name_of(call, graph), *diagnose(call, graph, reason), macs_of(call))
            )
            return
        if _is_of_signs(call.args[0], graph):
            notes.append(f"{name_of(call, graph)}: {SIGN}")
        if _has_scaled_weight(call, graph):
            notes.append(f"{name_of(call, graph)}: {SCALED}")

    visit_calls(mod, note)
    return left, notes


SIGN = (
    "sign(0) is 0, so its input has three levels and takes 2 bits. torch.where(x >= 0, 1.0, -1.0) "
    "takes 1"
)


SCALED = (
    "its weights are floats, recognised as codes by their values. Its sums are exact, where torch "
    "and ONNX Runtime add up rounded products: last bits differ, and a sign where a sum is 0"
)


def _has_scaled_weight(call: relax.Call, graph: Graph) -> bool:
    """Whether scales were found in a layer's weight by which a framework's products are rounded."""
    quantizer = weight_quantizer(call, graph)
    if quantizer is None or str(quantizer.attrs.get("origin", "")) != BY_VALUE:
        return False
    return not are_powers_of_two(encoding_of(quantizer).scale)


def _is_of_signs(operand: relax.Expr, graph: Graph) -> bool:
    quantizer = graph.definition(operand)
    if not is_call_to(quantizer, quantize_op) or int(quantizer.attrs["bits"]) != 2:
        return False
    return op_name(graph.definition(quantizer.args[0])) == "relax.sign"


def name_of(call: relax.Call, graph: Graph) -> str:
    """Name of a layer: its own, or else that of its op."""
    return graph.name or describe(call)


def macs_of(call: relax.Call) -> int:
    """Multiply-accumulates of a float layer, of one sample where the batch is dynamic."""
    data, weight, out = (
        [int(size) if isinstance(size, tvm.tirx.IntImm) else 1 for size in expr.ty.shape]
        for expr in (*call.args[:2], call)
    )
    if op_name(call) == "relax.matmul":
        return math.prod(out) * data[-1]
    # A transposed convolution reads each input once per weight of its channel.
    return math.prod(data if "transpose" in op_name(call) else out) * math.prod(weight[1:])


def _before_scheduling(
    mod: tvm.IRModule, target: Target
) -> tuple[list[LayerRow], list[FloatOps], list[Program]]:
    """Describe layers and float ops, and list the programs that `main` calls."""
    rows: list[LayerRow] = []
    programs: list[Program] = []
    ops: dict[str, list[str]] = {}

    def note(call: relax.Call, graph: Graph) -> None:
        if is_call_to(call, packed_conv2d_op):
            reason = str(call.attrs.get("cpu_reason", ""))
            row = row_of(conv_layer_of(call))
            rows.append(replace(row, schedule=origin_of(call), cpu_reason=reason))
        elif isinstance(call.op, tvm.ir.GlobalVar) and is_external(mod[call.op]):
            program, accelerator = program_of(mod[call.op])
            programs.append(program)
            rows.extend(offloaded_rows(region_of(mod[call.op]), program, accelerator))
        elif is_call_to(call, packed_max_pool2d_op) and target.accelerator is not None:
            reason = str(call.attrs["cpu_reason"])
            rows.append(replace(row_of_pool(Offloaded(call)), cpu_reason=reason))
        elif is_call_to(call, branch_matmul_op):
            rows.append(row_of_product(call))
        elif _is_float_op(call, graph):
            ops.setdefault(op_name(call).split(".")[-1], []).append(graph.name)

    visit_calls(mod, note)
    float_ops = [
        FloatOps(op, len(names), sorted({name for name in names if name}))
        for op, names in ops.items()
    ]
    return rows, float_ops, programs


def _rows_of(call: relax.Call, mod: tvm.IRModule, target: Target) -> Rows:
    """Rows that `_before_scheduling` makes of a call."""
    if isinstance(call.op, tvm.ir.GlobalVar) and is_external(mod[call.op]):
        region = region_of(mod[call.op])
        results = [region.sources[number] for number in region.outputs]
        return Rows(len(region.layers), region.edges, results)
    is_pool = is_call_to(call, packed_max_pool2d_op) and target.accelerator is not None
    if is_call_to(call, packed_conv2d_op) or is_call_to(call, branch_matmul_op) or is_pool:
        return Rows(1, [(-1 - i, 0) for i in range(len(call.args))], [{0}])
    return NO_ROWS


def _is_float_op(call: relax.Call, graph: Graph) -> bool:
    """Whether a call is float arithmetic at run time that isn't a layer."""
    name = op_name(call)
    if not name.startswith("relax.") or name in SILENT or is_layer(call):
        return False
    is_float = isinstance(call.ty, relax.TensorType) and str(call.ty.dtype) == "float32"
    return is_float and evaluate(call, graph) is None


def row_of(layer: ConvLayer) -> LayerRow:
    """Describe one layer of branches."""
    _, _, _, in_channels = layer.input_shape
    kernel = "x".join(map(str, layer.kernel_size))
    out = "batch x " * layer.has_dynamic_batch + "x".join(map(str, layer.output_size))
    stride = layer.geometry.strides[0]
    shape = f"{kernel} {in_channels}->{layer.out_channels} @{out}"
    shape += f"/{stride}" if stride > 1 else ""
    shape += f" tiles={layer.copies}" if layer.copies > 1 else ""
    shape += f" rows={len(layer.weight_codes)}" if layer.channel_rows else ""
    shape += "" if layer.geometry.is_product else f" branches={layer.geometry.branch_count}"
    weights = 0 if layer.is_pooling else layer.out_channels * layer.taps
    return LayerRow(
        layer.name,
        shape,
        layer.weight_bits,
        layer.act_bits,
        layer.out_bits,
        layer.strategy,
        0 if layer.is_pooling else layer.macs,
        FLOAT_BYTES * weights,
        layer.stored_bytes if weights else 0,
        moved_bytes=moved_bytes(layer),
        bit_operations=layer.bit_operations,
        branches=0 if layer.geometry.is_product else layer.geometry.branch_count,
    )


def moved_bytes(layer: ConvLayer) -> int:
    """Bytes of the weights, and of the codes that a layer reads and writes once each."""
    batch, height, width, channels = layer.input_shape
    read = math.prod((height, width, channels)) * layer.act_bits
    written = math.prod(layer.output_size) * layer.out_channels * layer.out_bits
    samples = 1 if layer.has_dynamic_batch else int(batch)
    stored = 0 if layer.is_pooling else layer.stored_bytes
    return stored + samples * (read + written) // 8


def offloaded_rows(region: Region, program: Program, accelerator: Accelerator) -> list[LayerRow]:
    """Describe the layers of a program, with their costs by the cycle model."""
    costs: dict[str, Cycles] = {}
    for layer, cycles in zip(program.layers, predicted_layers(program, accelerator)):
        costs[layer.name] = costs[layer.name] + cycles if layer.name in costs else cycles
    macs = {layer.name: layer.macs for layer in program.layers if layer.macs}
    return [
        offloaded_row(part, costs[part.name], macs.get(part.name, 0), accelerator)
        for part in region.layers
    ]


def offloaded_row(part: Offloaded, cycles: Cycles, macs: int, accelerator: Accelerator) -> LayerRow:
    """Describe a layer on the accelerator, with its cost for one sample."""
    work = work_of(cycles.times(part.samples), macs * part.samples, accelerator.macs_per_cycle)
    row = row_of_pool(part) if part.layer is None else row_of(conv_layer_of(part.call))
    if len(part.operands) > 1:
        row = replace(row, shape=row.shape + " + residual")
    if part.table is not None or part.float_thresholds is not None:
        row = replace(row, out_bits=part.out_bits)
    return replace(row, strategy=ACCELERATOR, schedule="program", work=work)


def row_of_pool(part: Offloaded) -> LayerRow:
    """Describe a max pooling: no weights, and no multiply-accumulates."""
    window = window_of(part.call)
    kernel, size = ("x".join(map(str, pair)) for pair in (window.kernel_size, window.output_size))
    shape = f"max {kernel} @{size}/{window.geometry.strides[0]}"
    return LayerRow(part.name, shape, 0, window.act_bits, window.out_bits, "", 0, 0, 0)


def row_of_product(call: relax.Call) -> LayerRow:
    """Describe a product of two activations: there are no weights to store."""
    batch, rows, columns = sizes_of(call.ty.shape, 1)
    terms = int(call.args[0].ty.shape[2])
    return LayerRow(
        str(call.attrs["layer"]),
        f"{rows}x{terms} {terms}x{columns}" + (f" @{batch}" if batch > 1 else ""),
        weight_bits=len(call.attrs["weight_coefficients"]),
        act_bits=len(call.attrs["act_coefficients"]),
        out_bits=32,
        strategy=str(call.attrs["strategy"]),
        macs=batch * rows * terms * columns,
        float_bytes=0,
        stored_bytes=0,
    )


def _lenient_lowering(refused: list[FloatLayer]) -> tvm.ir.transform.Pass:
    """Return `Lower`, but for layers that it refuses: they stay float and are listed."""

    def attempt(call: relax.Call, graph: Graph) -> relax.Expr | None:
        try:
            return lower_layer(call, graph)
        except UnsupportedError as error:
            reason = f"refused: {error.cause}" if error.cause else str(error)
            refused.append(FloatLayer(name_of(call, graph), reason, error.cure, macs_of(call)))
            return None

    @tvm.transform.module_pass(opt_level=0, name="bitenc.Lower")
    def lenient(mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        return merge_equal(rewrite_calls(mod, attempt))

    return lenient
