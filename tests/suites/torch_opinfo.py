"""torch's own samples of its operators, through from_torch and build, against torch itself.

python -m tests.suites.torch_opinfo            # the counts, and what is refused and why
python -m tests.suites.torch_opinfo --write    # the same as docs/operators-torch.md
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

import tvm_bitenc as be
from tests.suites.isolated import KINDS, Outcome, Wrong, run
from tests.suites.torch_forms import Form, opinfo_forms
from tvm_bitenc.frontend.torch.operators import OPERATORS

PAGE = Path(__file__).parents[2] / "docs" / "operators-torch.md"
SAMPLES = 2
LIMIT = 120.0
# What these return is anything at all.
UNDEFINED = ("empty", "empty_like", "empty_permuted", "empty_strided", "new_empty")


def check(form: Form) -> None:
    """Compile a form and compare every output with torch's.

    Raises
    ------
    Wrong
        If count, dtypes, shapes or values differ: integers and truth values by anything, floats by
        more than rounding.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    with torch.no_grad():
        expected = form.module(*[x.clone() for x in form.inputs])
    expected = [y for y in tree_leaves(expected) if y is not None]
    lib = be.build(be.from_torch(form.module, form.inputs), threads=1)
    try:
        results = lib(*form.inputs)
    except be.errors.BitencError as error:  # A refusal comes before a model runs.
        raise RuntimeError(f"at run time: {error}") from error
    results = results if isinstance(results, tuple) else (results,)
    if len(results) != len(expected):
        raise Wrong(f"{len(results)} outputs, not {len(expected)}")
    for i, pair in enumerate(zip(results, expected)):
        _compare(f"output {i}", *pair, values=form.operator not in UNDEFINED)


def _compare(name: str, result: np.ndarray, expected: torch.Tensor, values: bool) -> None:
    expected = torch.as_tensor(expected).detach().resolve_conj().resolve_neg().numpy()
    if result.dtype != expected.dtype:
        raise Wrong(f"{name} is {result.dtype}, not {expected.dtype}")
    if result.shape != expected.shape:
        raise Wrong(f"{name} has shape {result.shape}, not {expected.shape}")
    if expected.dtype.kind == "f":
        same = np.isclose(result, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
    else:
        same = result == expected
    if values and not np.all(same):
        at = tuple(int(i) for i in np.argwhere(~same)[0])
        count = np.size(same) - np.count_nonzero(same)
        raise Wrong(
            f"{name}: {count} of {np.size(same)} differ: at {at} {result[at]}, not {expected[at]}"
        )


def outcomes(samples: int = SAMPLES, only: str = "") -> list[tuple[str, Outcome]]:
    """Run the forms of all operators, or of those whose name contains `only`."""
    torch.set_num_threads(1)
    forms = [form for form in opinfo_forms(samples) if only in form.operator]
    _warm_up()
    results = run(check, forms, LIMIT)
    return [(form.operator, outcome) for form, outcome in zip(forms, results)]


def _warm_up() -> None:
    """Export and build once, so that what torch and TVM load on first use is in every child."""
    be.build(be.from_torch(torch.nn.ReLU(), (torch.ones(2),)), threads=1)


def counts(results: Sequence[tuple[str, Outcome]]) -> dict[str, int]:
    """How many forms ended in which way."""
    found = Counter(outcome.kind for _, outcome in results)
    return {kind: found[kind] for kind in KINDS}


def refusals(results: Sequence[tuple[str, Outcome]]) -> dict[str, list[str]]:
    """Names of operators by the reason why a form of theirs is refused."""
    reasons = defaultdict(set)
    for operator, outcome in results:
        if outcome.kind == "refused":
            reasons[_reason(outcome.detail)].add(operator)
    return {reason: sorted(names) for reason, names in sorted(reasons.items())}


def _reason(message: str) -> str:
    if message.startswith("from_torch: torch.export fails"):
        return "torch.export can't export it"
    if "no operator that is taken" in message:
        return "it needs an operator that isn't taken"
    where, _, rest = message.partition(" of layer '': ")
    cause = (rest or where.partition(": ")[2]).split(". ")[0]
    return " ".join("..." if any(c.isdigit() for c in word) else word for word in cause.split())


def page(results: Sequence[tuple[str, Outcome]]) -> str:
    """The documentation page."""
    lines = [HEAD, *_table(("outcome", "forms"), counts(results).items())]
    lines += ["", "## Operators that are taken", "", TAKEN, ""]
    lines += [", ".join(f"`{name}`" for name in sorted(OPERATORS)) + "."]
    lines += ["", "## What is refused", "", REFUSED, ""]
    names = [(reason, ", ".join(ops)) for reason, ops in refusals(results).items()]
    return "\n".join([*lines, *_table(("why", "operators of OpInfo"), names), ""])


def _table(head: tuple, rows) -> list[str]:
    cells = [head, ("---",) * len(head), *rows]
    return [f"| {' | '.join(_plain(str(cell)) for cell in row)} |" for row in cells]


def _plain(cell: str) -> str:
    """Text without what would be a column or a link."""
    return cell.replace("|", "/").replace("](", "] (")


HEAD = """# Operators of PyTorch

What `from_torch` takes, and how it is known to be right. Written by
`python -m tests.suites.torch_opinfo --write`, which runs torch's own samples of its operators
(OpInfo) as small models, two of each operator, as unlike as there are, the second with constant
operands: exported, imported, built and compared with torch in values, shapes and dtypes, each in a
process of its own. Integers and truth values have to be equal, floats up to rounding.

A *refused* form ends in an `UnsupportedError` that names the operator, the cause and a cure;
*wrong* is another value, shape or dtype than torch's; *raw* any other exception or a crash; *hang*
more than two minutes.
"""
TAKEN = """Models are first decomposed by torch into its core operators, so that many more
are taken than are listed here. An argument that a converter doesn't read has to have its default,
and what it gives is compared with the dtype and shape that torch computed: a difference is refused.
Values that depend on constants alone are computed by torch itself, whatever their operator is.

Indices may count from the end. A constant index outside of its axis is refused; one that is
computed when the model runs means the nearest index inside, where torch would raise an error.
Inputs are never changed, by in-place operators either. Integers divided by a zero that is computed
when the model runs, for which torch raises an error, are divided by one. Where `torch.topk` leaves
open which of equal elements it gives, the first ones are taken. Sorting, `argmax`, `argmin` and
pooling expect numbers: where NaN stands among them, torch gives other results."""
REFUSED = """One form of an operator may be refused and another taken: the reasons are those of
forms."""


def main() -> None:
    """Print the counts and the refusals, or write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of each operator")
    parser.add_argument("--only", default="", help="operators whose name contains this")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    arguments = parser.parse_args()
    results = outcomes(arguments.samples, arguments.only)
    for operator, outcome in results:
        if outcome.kind not in ("pass", "refused"):
            print(f"{outcome.kind}: {operator}: {outcome.detail}")
    for reason, names in refusals(results).items():
        print(f"refused: {reason}: {', '.join(names)}")
    print(", ".join(f"{count} {kind}" for kind, count in counts(results).items()))
    if arguments.write:
        PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
