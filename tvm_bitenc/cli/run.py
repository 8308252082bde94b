"""``bitenc run``: a library or a model on inputs from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ..files import written_whole
from .libraries import inputs_of, open_library
from .options import AsJson, Inputs, Runnable, Shapes


def run(
    file: Runnable,
    inputs: Inputs = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the outputs: .npy, or .npz of all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of random inputs.")] = 0,
    shape: Shapes = None,
    as_json: AsJson = False,
) -> None:
    """Run a library or a model once.

    Example: bitenc run net.so --input image.npy -o logits.npy
    """
    lib = open_library(file, shape or ())
    result = lib(*inputs_of(lib, inputs or (), seed))
    arrays = result if isinstance(result, tuple) else (result,)
    names = [spec.name or f"output{i}" for i, spec in enumerate(lib.outputs)]
    if output is not None:
        _write(output, dict(zip(names, arrays)))
    rows = [_describe(name, array) for name, array in zip(names, arrays)]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print("{name}: {dtype} {shape}, {least:g} to {largest:g}".format(**row))
    if output is not None:
        print(f"Wrote {output}.")


def _describe(name: str, array: np.ndarray) -> dict:
    return {
        "name": name,
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "least": float(array.min()),
        "largest": float(array.max()),
    }


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with written_whole(path) as temporary, temporary.open("wb") as file:
        if len(arrays) == 1 and path.suffix != ".npz":
            (array,) = arrays.values()
            np.save(file, array)
        else:
            np.savez(file, allow_pickle=False, **arrays)
