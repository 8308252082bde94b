"""What a file of a model may make us read and hold: nothing beside it, and no more than it has.

Weights may lie in other files. Those must lie below the model's folder, be regular files, and have
the bytes that are asked of them. Functions may call others: a few that call each other twice grow
to any size once they are inlined, and one that calls itself never ends.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model

from ...errors import BitencError

MOST_BYTES = 2**31 - 1  # Of a file, as protobuf has it.
MOST_ELEMENTS = 2**31 - 1  # Of one tensor.
MOST_NODES = 1 << 20  # Once all functions are inlined.
MOST_DEPTH = 32  # Of graphs inside of nodes.
_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
# Elements in a byte of raw data, where they are no whole bytes.
_PACKED = {"UINT4": 2, "INT4": 2, "FLOAT4E2M1": 2, "UINT2": 4, "INT2": 4}


def read(path: Path, where: str) -> ModelProto:
    """Read a model and its weights, wherever they lie.

    Raises
    ------
    BitencError
        If it is too large, no model, or asks for a file outside of its folder.
    """
    if path.stat().st_size > MOST_BYTES:
        raise BitencError(where, "is larger than 2 GB", "Store its weights as external data")
    model = onnx.load(path, load_external_data=False)
    tensors = [t for t in tensors_of(model, where) if t.data_location == TensorProto.EXTERNAL]
    total = sum(_external_bytes(tensor, path.parent, where) for tensor in tensors)
    if total > MOST_BYTES * 4:
        raise BitencError(where, "has more than 8 GB of weights", "Use a smaller model")
    if tensors:
        load_external_data_for_model(model, str(path.parent))
    return model


def check(model: ModelProto, where: str) -> None:
    """Raise `BitencError` for tensors that don't hold what they say, and functions without end."""
    for tensor in tensors_of(model, where):
        _check_size(tensor, where)
    _check_functions(model, where)


def tensors_of(model: ModelProto, where: str) -> Iterator[TensorProto]:
    """All tensors of graphs, functions and attributes."""
    yield from _tensors(model.graph, where)
    for function in model.functions:
        yield from _of_nodes(function.node, where, 0)


def _tensors(graph: GraphProto, where: str, depth: int = 0) -> Iterator[TensorProto]:
    if depth > MOST_DEPTH:
        raise BitencError(where, f"has graphs {depth} deep in each other", "Export a flat model")
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node, where, depth)


def _of_nodes(nodes: Iterable[NodeProto], where: str, depth: int) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in _graphs(attribute):
                yield from _tensors(graph, where, depth + 1)


def _graphs(attribute: onnx.AttributeProto) -> list[GraphProto]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _external_bytes(tensor: TensorProto, folder: Path, where: str) -> int:
    """Bytes that a tensor has in another file; an error unless they are there, in this folder."""
    try:
        info = ExternalDataInfo(tensor)
        offset, length = int(info.offset or 0), info.length
    except (ValueError, AttributeError) as error:
        raise _outside(tensor, where, f"isn't described ({error})") from None
    location = Path(info.location)
    if not info.location or location.is_absolute() or ".." in location.parts:
        raise _outside(tensor, where, f"is in {info.location!r}, outside of the model's folder")
    path = folder
    for part in location.parts:
        path = path / part
        if path.is_symlink():
            raise _outside(tensor, where, f"is in {info.location!r}, which is a link")
    if "\0" in info.location or not path.is_file():
        raise _outside(tensor, where, f"is in {info.location!r}, which isn't a file")
    there = os.stat(path).st_size
    wanted = there - offset if length is None else int(length)
    if min(offset, wanted) < 0 or offset + wanted > there:
        raise _outside(tensor, where, f"wants {wanted} bytes at {offset} of {there}")
    return wanted


def _outside(tensor: TensorProto, where: str, cause: str) -> BitencError:
    cure = "Put the file beside the model, or export it again"
    return BitencError(f"{where}, tensor {tensor.name!r}", cause, cure)


def _check_size(tensor: TensorProto, where: str) -> None:
    elements = math.prod(tensor.dims)
    if any(size < 0 for size in tensor.dims) or elements > MOST_ELEMENTS:
        shape = tuple(tensor.dims)[:8]
        raise BitencError(f"{where}, tensor {tensor.name!r}", f"has the shape {shape}", "Shrink it")
    if tensor.data_location == TensorProto.EXTERNAL:
        raise _outside(tensor, where, "is in another file, and its folder isn't known")
    stored = _stored_elements(tensor)
    if stored is not None and stored != elements:
        raise BitencError(
            f"{where}, tensor {tensor.name!r}",
            f"has {stored} numbers, and {elements} by its shape {tuple(tensor.dims)[:8]}",
            "Export it again",
        )


def _stored_elements(tensor: TensorProto) -> int | None:
    """How many numbers a tensor has, as raw bytes or in a list; None if that can't be said."""
    try:
        kind = TensorProto.DataType.Name(tensor.data_type)
        size = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (ValueError, KeyError, TypeError):
        return None  # The checker names it.
    elements = math.prod(tensor.dims)
    if not tensor.HasField("raw_data"):
        listed = sum(len(getattr(tensor, name)) for name in _FIELDS)
        parts = 2 if kind.startswith("COMPLEX") else 1
        is_packed = kind in _PACKED and listed == -(-elements // _PACKED[kind])
        return elements if is_packed else listed // parts
    if kind in _PACKED:
        return elements if len(tensor.raw_data) == -(-elements // _PACKED[kind]) else -1
    return len(tensor.raw_data) // size if len(tensor.raw_data) % size == 0 else -1


def _check_functions(model: ModelProto, where: str) -> None:
    """Count nodes as they are once functions are inlined, without inlining them."""
    functions = {(f.domain, f.name): f for f in model.functions}
    counts: dict[tuple[str, str], int] = {}
    open_ones: list[tuple[str, str]] = []

    def count_of(key: tuple[str, str]) -> int:
        if key in open_ones or len(open_ones) > MOST_DEPTH:
            why = "calls itself" if key in open_ones else f"is {MOST_DEPTH} calls deep"
            raise BitencError(f"{where}, function {key[1]!r}", why, "Export it without functions")
        if key not in counts:
            open_ones.append(key)
            counts[key] = count(functions[key].node)
            open_ones.pop()
        return counts[key]

    def count(nodes: Iterable[NodeProto]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            total += count_of(key) if key in functions else 1
            total += sum(count(g.node) for a in node.attribute for g in _graphs(a))
        return total

    if count(model.graph.node) > MOST_NODES:
        raise BitencError(
            where, f"has more than {MOST_NODES:,} nodes once its functions are inlined", "Shrink it"
        )
