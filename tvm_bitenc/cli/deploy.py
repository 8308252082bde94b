"""``bitenc deploy``: run a library on a device, check it against the model, time its layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from ..errors import BitencError
from .libraries import read_array
from .models import read_model

if TYPE_CHECKING:
    from ..deploy.remote import Deployment


def deploy(
    library: Annotated[Path, typer.Argument(help="A library of export_library.")],
    host: Annotated[str, typer.Option(help="Where a server or tracker runs.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Its port.")] = 9090,
    key: Annotated[str, typer.Option(help="Kind of device.")] = "",
    tracker: Annotated[
        bool, typer.Option("--tracker", help="A tracker listens there, not a server.")
    ] = False,
    model: Annotated[
        Path | None, typer.Option(help="The .onnx or .pt2 file: the reference, compiled here.")
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option(help="Shape of a dynamic input of it, as x=1,3,224,224.")
    ] = None,
    inputs: Annotated[
        list[Path] | None, typer.Option("--input", help="An .npy file; random numbers without.")
    ] = None,
    number: Annotated[int, typer.Option(help="Runs to time.")] = 10,
    timeout: Annotated[int, typer.Option(help="Seconds for all of it.")] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Upload a library to a device, run it, compare every bit with the model, time each layer."""
    from ..deploy.connection import Connection
    from ..deploy.inputs import random_inputs
    from ..deploy.library import read_library
    from ..deploy.remote import deploy as deploy_library

    specs = read_library(library).inputs
    arrays = [read_array(path) for path in inputs] if inputs else random_inputs(specs)
    connection = Connection(host, port, key, tracker, timeout)
    done = deploy_library(library, arrays, connection, number=number)
    differences = None if model is None else done.differences(_reference(model, shape, arrays))
    _print(done, differences, as_json)
    if differences:
        raise BitencError(
            str(library),
            f"computed {differences} elements otherwise than {model} does here",
            "Export the library from this very model again",
        )


def _reference(model: Path, shape: list[str] | None, arrays: list[np.ndarray]) -> list[np.ndarray]:
    from ..compiler import build

    result = build(read_model(model, shape or ()))(*arrays)
    return list(result) if isinstance(result, tuple) else [result]


def _print(done: Deployment, differences: int | None, as_json: bool) -> None:
    elements = sum(output.size for output in done.outputs)
    times = done.benchmark
    if as_json:
        content = {
            "elements": elements,
            "differences": differences,
            "seconds": times.seconds.tolist(),
            "layers": times.layers,
        }
        print(json.dumps(content, indent=2))
        return
    if differences is None:
        print(f"{elements} output elements, not compared: give --model to do so")
    else:
        print(f"{elements} output elements, {differences} differ from the model compiled here")
    print(times)
