"""ONNX's own backend tests as an oracle of `from_onnx` and `build`, and the page about them.

A test is in the domain if

- it is one of a single operator (``node``) or a small model (``simple``, ``pytorch-converted``,
  ``pytorch-operator``) of the standard domain,
- onnx's checker takes the model, with strict shape inference, as of operator set 7 to 21: one of
  a later or of an earlier set counts where it says the same in set 21 or 7,
- inputs and outputs are tensors of float32, bool, int8, uint8, int32 or int64, none of them empty,
- ONNX can tell the shapes of the outputs without the values that are fed, for from_onnx is for
  fixed shapes,
- its numbers don't come from a random generator,

- it isn't another test's operator spelled out (``_expanded``).

Each runs with all inputs fed, and, where it has several, with all but the first as constants.

    python -m tests.suites.onnx_backend            # counts, and what is refused
    python -m tests.suites.onnx_backend --write    # the same into docs/operators-onnx.md
    python -m tests.suites.onnx_backend resize     # tests with that word in their name, in full
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

import tvm_bitenc as be
from tests.suites.isolated import KINDS, Outcome, Wrong, run
from tvm_bitenc.frontend.onnx import constants, walk  # In the parent: children are forks.

TESTS = ("node", "simple", "pytorch-converted", "pytorch-operator")
TYPES = frozenset((TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT8, TensorProto.UINT8)).union(
    (TensorProto.INT32, TensorProto.INT64)
)
RANDOM = frozenset(("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike")).union(
    ("RandomUniform", "RandomUniformLike")
)
SETS = range(7, 22)
PAGE = Path(__file__).parents[2] / "docs" / "operators-onnx.md"
RELU = '<ir_version: 8, opset_import: ["": 17]> relu (float[2] x) => (float[2] y) {y = Relu(x)}'
LIMIT = 60.0  # Seconds of one test; the slowest takes a few.

_HEAD = """<!-- Written by `python -m tests.suites.onnx_backend --write`. -->
# ONNX operators

What `from_onnx` takes, of operator sets 7 to 21, and what it refuses. ONNX's own backend tests are
run through `from_onnx` and `build`, each in a process of its own, and every number, shape and type
is compared with the test's: tests of single operators and small models of the standard domain,
whose inputs and outputs are tensors of float32, bool, int8, uint8, int32 or int64, whose shapes
ONNX can tell without the values that are fed, and that draw no random numbers. A test of a later or
an earlier operator set counts where onnx's checker takes it as one of 21 or 7. Tests run with all
inputs fed, and again with all but the first as constants.

| outcome | tests |
|---|---|"""
_OPERATORS = """
A refusal names the node, the reason and the cure. Nothing else may happen: a wrong number, another
exception or a test that doesn't end is a fault.

## Taken

Whatever converts an operator, its outputs are checked against what ONNX's type and shape inference
says of them, and an attribute or an input that isn't looked at is refused. An index below 0 counts
from the end; one outside of its axis is refused where it is constant, and becomes the nearest
inside where it comes at run time.

| operator | operator sets | by | tests passed |
|---|---|---|---|"""
_REFUSED = """
## Refused in these tests

| operator | because it | tests |
|---|---|---|"""


@dataclass(frozen=True)
class Case:
    """A model, and the outputs that ONNX gives for some inputs.

    Attributes
    ----------
    name : str
        Of the test in onnx, and how its inputs are fed.
    model : onnx.ModelProto
    data : tuple of (list of ndarray, list of ndarray)
        Inputs and outputs.
    rtol, atol : float
    """

    name: str
    model: ModelProto
    data: tuple[tuple[list[np.ndarray], list[np.ndarray]], ...]
    rtol: float
    atol: float


def cases(word: str = "") -> list[Case]:
    """Collect the tests in the domain whose names have a word in them, each in both ways."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        tests = [test for kind in TESTS for test in load_model_tests(kind=kind)]
    chosen = [t for t in tests if word in t.name and "_expanded" not in t.name]
    return [case for test in chosen for case in _both_ways(test)]


def _both_ways(test) -> Iterator[Case]:
    folder = Path(test.model_dir) if test.model_dir else None
    model = _in_range(onnx.load(folder / "model.onnx") if folder else test.model)
    if model is None or not _in_domain(model):
        return
    data = _data(folder, model) if folder else _arrays(test.data_sets)
    arrays = [array for inputs, outputs in data for array in (*inputs, *outputs)]
    if not arrays or any(0 in array.shape for array in arrays):
        return
    if _has_known_shapes(model):
        yield Case(f"{test.name}, fed", model, data, test.rtol, test.atol)
    if len(_inputs(model)) > 1:
        bound, inputs = _with_constants(model, data[0][0])
        if _has_known_shapes(bound):
            data = ((inputs, data[0][1]),)
            yield Case(f"{test.name}, constant", bound, data, test.rtol, test.atol)


def _in_range(model: ModelProto) -> ModelProto | None:
    """Return a model as of the nearest operator set in the range, None if it isn't valid then."""
    if any(o.domain not in ("", "ai.onnx") for o in model.opset_import):
        return None
    changed = ModelProto()
    changed.CopyFrom(model)
    version = changed.opset_import[0].version
    changed.opset_import[0].version = min(max(version, SETS.start), SETS.stop - 1)
    changed.ir_version = min(max(changed.ir_version, 4), 10)  # 3 wants weights as inputs too.
    try:
        onnx.checker.check_model(changed, full_check=True)
    except Exception:  # The checker and shape inference have no common class of errors.
        return None
    return changed


def _in_domain(model: ModelProto) -> bool:
    return all(
        value.type.WhichOneof("value") == "tensor_type"
        and value.type.tensor_type.elem_type in TYPES
        for value in (*model.graph.input, *model.graph.output)
    ) and not any(node.op_type in RANDOM for node in model.graph.node)


def _has_known_shapes(model: ModelProto) -> bool:
    """Whether ONNX can tell the shapes of the outputs without what is fed."""
    bare = ModelProto()
    bare.CopyFrom(model)
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph.output
    return all(
        value.type.tensor_type.HasField("shape")
        and all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)
        for value in inferred
    )


def _arrays(sets) -> tuple:
    return tuple(tuple([np.asarray(a) for a in side] for side in one) for one in sets)


def _data(folder: Path, model: ModelProto) -> tuple:
    """Inputs and outputs that are stored beside a model."""
    return tuple(
        (
            [_tensor(one / f"input_{i}.pb") for i in range(len(_inputs(model)))],
            [_tensor(one / f"output_{i}.pb") for i in range(len(model.graph.output))],
        )
        for one in sorted(folder.glob("test_data_set_*"))
    )


def _tensor(path: Path) -> np.ndarray:
    return numpy_helper.to_array(TensorProto.FromString(path.read_bytes()))


def _inputs(model: ModelProto) -> list[str]:
    weights = {weight.name for weight in model.graph.initializer}
    return [value.name for value in model.graph.input if value.name not in weights]


def _with_constants(model: ModelProto, arrays: list[np.ndarray]) -> tuple[ModelProto, list]:
    """Bind all inputs but the first one to what they are in the test."""
    bound = ModelProto()
    bound.CopyFrom(model)
    names = _inputs(model)
    for name, array in zip(names[1:], arrays[1:]):
        bound.graph.initializer.append(numpy_helper.from_array(array, name))
    kept = [value for value in bound.graph.input if value.name not in names[1:]]
    del bound.graph.input[:]
    bound.graph.input.extend(kept)
    return bound, arrays[:1]


def check(case: Case) -> None:
    """Import, compile and run a model; raise `Wrong` for what isn't ONNX's number."""
    lib = be.build(be.from_onnx(case.model), threads=1)
    for inputs, outputs in case.data:
        found = lib(*inputs)
        found = found if isinstance(found, tuple) else (found,)
        if len(found) != len(outputs):
            raise Wrong(f"{len(found)} outputs, not {len(outputs)}")
        for i, (a, b) in enumerate(zip(found, outputs)):
            if (a.shape, a.dtype) != (b.shape, b.dtype):
                raise Wrong(f"output {i} is {a.dtype}{a.shape}, not {b.dtype}{b.shape}")
            if not np.allclose(a, b, case.rtol, case.atol, equal_nan=True):
                raise Wrong(f"output {i} is {_head(a)}, not {_head(b)}")


def _head(array: np.ndarray) -> str:
    return np.array2string(array.reshape(-1)[:8], precision=6, separator=", ")


def outcomes(tests: Sequence[Case], workers: int | None = None) -> list[Outcome]:
    """Run tests in processes of their own."""
    _warm_up()
    return run(check, tests, LIMIT, workers)


def _warm_up() -> None:
    """Import and build once: the first build of a process takes ten times as long as the next."""
    be.build(be.from_onnx(onnx.parser.parse_model(RELU)), threads=1)


def stated_passes() -> int:
    """Tests that pass, as the page says."""
    return int(re.search(r"\| pass \| (\d+) \|", PAGE.read_text(encoding="utf-8")).group(1))


def page(tests: Sequence[Case], found: Sequence[Outcome]) -> str:
    """Markdown page of what is taken and what is refused."""
    counts = Counter(outcome.kind for outcome in found)
    rows = [f"| {kind} | {counts[kind]} |" for kind in KINDS]
    return "\n".join(
        [
            _HEAD,
            *rows,
            _OPERATORS,
            *_operator_rows(tests, found),
            _REFUSED,
            *_refused_rows(found),
            "",
        ]
    )


def _operator_rows(tests: Sequence[Case], found: Sequence[Outcome]) -> Iterator[str]:
    passed: Counter[str] = Counter()
    for case, outcome in zip(tests, found):
        if outcome.kind == "pass":
            passed.update({node.op_type for node in case.model.graph.node})
    for op in sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}):
        versions = [v for v in SETS if onnx.defs.has(op, v, "")]
        how = _how(op, versions[-1]) if versions else None
        if how:
            yield f"| {op} | {versions[0]} to {versions[-1]} | {how} | {passed[op]} |"


def _how(op: str, version: int) -> str | None:
    if ("", op) in walk.CONVERTERS:
        return "own converter"
    if op in walk.TVM:
        return f"TVM's converter, of {walk.TVM[op][0] if len(walk.TVM[op]) == 1 else 'any type'}"
    if op == "If":
        return "constant condition"
    if op in constants.FOLDABLE:
        return "constant inputs"
    schema = onnx.defs.get_schema(op, version, "")
    has_body = schema.has_function or schema.has_context_dependent_function
    return "as ONNX defines it by other operators" if has_body and op not in RANDOM else None


def _refused_rows(found: Sequence[Outcome]) -> Iterator[str]:
    reasons: Counter[tuple[str, str]] = Counter()
    for outcome in found:
        if outcome.kind == "refused":
            op = outcome.detail.split(" ")[0]
            cause = re.sub(r"^[^:]*: |\. [A-Z].*$", "", outcome.detail).split(" (ops")[0]
            reasons[op, re.sub(r"[\[(][\d, ]*[\])]", "...", cause)] += 1
    for (op, cause), count in sorted(reasons.items()):
        yield f"| {op} | {cause.replace('|', '/')} | {count} |"


def main() -> None:
    """Print counts, refusals and faults, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("word", nargs="?", default="", help="part of the names of the tests to run")
    parser.add_argument("--write", action="store_true", help="write docs/operators-onnx.md")
    options = parser.parse_args()
    tests = cases(options.word)
    found = outcomes(tests)
    for case, outcome in zip(tests, found):
        if outcome.kind not in ("pass", "refused") or (options.word and outcome.kind != "pass"):
            print(f"{outcome.kind:8}{case.name}: {outcome.detail}")
    print(*_refused_rows(found), sep="\n")
    counts = Counter(outcome.kind for outcome in found)
    print(f"{len(tests)} tests:", ", ".join(f"{counts[kind]} {kind}" for kind in KINDS))
    if options.write:
        PAGE.write_text(page(tests, found), encoding="utf-8")


if __name__ == "__main__":
    main()
