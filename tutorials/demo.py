"""Train small networks on scanned digits, compile them, and check every integer against torch.

Run it with ``make demo``. It prints a table and writes a page with the same table and a picture.
"""

from __future__ import annotations

import argparse
import base64
import io
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import digits
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import tvm_bitenc as be
from tvm_bitenc.report.html import report_section, write_page

HEADINGS = [
    "network",
    "accuracy, torch",
    "accuracy, compiled",
    "same integer logits",
    "weight bytes",
    "us per image",
    "torch fp32, us",
]


@dataclass(frozen=True)
class Result:
    """One row of the table."""

    name: str
    torch_accuracy: float
    accuracy: float
    same: int
    images: int
    float_bytes: int
    stored_bytes: int
    microseconds: float
    float_microseconds: float

    def cells(self) -> list[str]:
        """Texts in the order of `HEADINGS`."""
        return [
            self.name,
            f"{100 * self.torch_accuracy:.1f} %",
            f"{100 * self.accuracy:.1f} %",
            f"{self.same} of {self.images}",
            f"{self.float_bytes:,} -> {self.stored_bytes:,}",
            f"{self.microseconds:.1f}",
            f"{self.float_microseconds:.1f}",
        ]


def integer_logits(logits: np.ndarray, out_scale: np.ndarray) -> np.ndarray:
    """Integers that the classifier scaled: logits (N, classes) over its scale per class.

    Raises
    ------
    ValueError
        If a logit is no integer multiple of its scale.
    """
    quotient = logits.astype(np.float64) / out_scale
    integers = np.rint(quotient)
    # A logit is rounded once to float32, so its quotient is off by half a unit of 24 bits at most.
    if np.any(np.abs(quotient - integers) > np.abs(integers) * 2.0**-23):
        raise ValueError("a logit is no integer multiple of its scale")
    return integers.astype(np.int64)


def reference_integers(model: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
    """Integer logits by torch: the classifier's own integers, multiplied in int64."""
    inputs = []
    hook = model.classifier.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        model(images)
        act = model.classifier.act.integers(inputs[0]).numpy().astype(np.int64)
        weight = model.classifier.weight_integers().numpy().astype(np.int64)
    hook.remove()
    return act @ weight.T


def fastest(runs: dict, repeat: int = 30) -> dict:
    """Least seconds of each callable, measured in turn so that noise hits all alike."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(repeat):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def compile_and_check(name: str, model, float_model, images, labels):
    """Compile one network for the whole held-out set at once; return its row and the model."""
    lib = be.build(be.from_torch(model, (images,)), threads=1)
    logits = lib(images)
    same = integer_logits(logits, model.classifier.out_scale.numpy()) == reference_integers(
        model, images
    )
    with torch.no_grad():
        seconds = fastest({"compiled": lambda: lib(images), "float": lambda: float_model(images)})
        torch_accuracy = digits.accuracy(model, images, labels)
    report, count = lib.report(), len(images)
    result = Result(
        name,
        torch_accuracy,
        float((logits.argmax(1) == labels.numpy()).mean()),
        int(same.all(axis=1).sum()),
        count,
        report.float_bytes,
        report.stored_bytes,
        1e6 * seconds["compiled"] / count,
        1e6 * seconds["float"] / count,
    )
    return result, lib


def picture(images: np.ndarray, predictions: np.ndarray, labels: np.ndarray) -> str:
    """Draw 24 digits under their predictions, as a data URL."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(4, 6, figsize=(6, 4.8))
    for axis, image, prediction, label in zip(axes.flat, images, predictions, labels):
        axis.imshow(image[0], cmap="gray_r")
        axis.set_title(str(prediction), color="tab:green" if prediction == label else "tab:red")
        axis.axis("off")
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    pyplot.close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def train_all(epochs: int, data) -> dict[str, torch.nn.Module]:
    """Train the float twin, then 4, 2 and 1 bits, each from the one before."""
    done: Counter[str] = Counter()
    with Progress(transient=True) as bar:
        task = bar.add_task("training", total=4 * epochs)

        def progress(name: str) -> None:
            done[name] += 1
            bar.update(task, advance=1, description=f"training {name}")
            if done[name] == epochs:  # Logs, which show no bar, get these lines all the same.
                bar.console.print(f"trained {name}, {epochs} epochs")

        return digits.train_route((4, 2, 1), data, epochs, progress=progress)


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; 1 if any integer differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15, help="per network (default 15)")
    parser.add_argument("--out", type=Path, default=Path("build/demo.html"), help="page to write")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    data = digits.load_digits()
    models = train_all(options.epochs, data)
    _, _, images, labels = data
    console, results, sections = Console(width=110), [], []
    float_model = models.pop("float").eval()
    shown = None
    for name, model in models.items():
        console.print(f"compiling {name}, comparing {len(images)} images")
        result, lib = compile_and_check(name, model.eval(), float_model, images, labels)
        results.append(result)
        section = report_section(lib.report())
        sections.append({**section, "heading": f"Layers of {name}"})
        if name == "W2A2":
            predictions = lib(images).argmax(1)
            shown = picture(images.numpy()[:24], predictions[:24], labels.numpy()[:24])
    float_accuracy = digits.accuracy(float_model, images, labels)
    note = (
        f"{len(images)} held-out digits, one batch, one thread. "
        f"Float twin in torch: {100 * float_accuracy:.1f} %."
    )
    _print_table(console, results, note)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [result.cells() for result in results]
    table = {"heading": "Results", "paragraphs": [note], "headings": HEADINGS, "rows": rows}
    image = {"heading": "Digits and what W2A2 reads", "paragraphs": [], "image": shown}
    path = write_page(options.out, "tvm-bitenc on scanned digits", [table, image, *sections])
    console.print(f"The page: {path.resolve()}")
    wrong = [result.name for result in results if result.same != result.images]
    if wrong:
        console.print(f"integer logits differ from torch's: {', '.join(wrong)}")
    return 1 if wrong else 0


def _print_table(console: Console, results: list[Result], note: str) -> None:
    table = Table(title=note)
    for heading in HEADINGS:
        justify = "left" if heading == "network" else "right"
        table.add_column(heading, justify=justify, no_wrap=heading == "weight bytes")
    for result in results:
        table.add_row(*result.cells())
    console.print(table)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)
