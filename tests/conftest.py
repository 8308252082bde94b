"""Shared fixtures: random quantized layers, modules made of them, and ways to run a module."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprVisitor, visitor

import tvm_bitenc
from tvm_bitenc import reference
from tvm_bitenc.branches import BranchGeometry
from tvm_bitenc.encoding import Encoding, along
from tvm_bitenc.op import quantize
from tvm_bitenc.reference import pads, pair
from tvm_bitenc.te.function import prim_func
from tvm_bitenc.transform import Pipeline, default_pipeline

KINDS = {
    "symmetric": Encoding.symmetric,
    "unsigned": Encoding.unsigned,
    "signed": Encoding.signed,
}


@dataclass(frozen=True, eq=False)
class Layer:
    """A quantized convolution, or a dense layer where the codes have two axes."""

    act: Encoding
    weight: Encoding
    act_codes: np.ndarray
    weight_codes: np.ndarray
    window: dict = field(default_factory=dict)
    name: str = ""

    def __str__(self) -> str:
        return (
            f"W{self.weight.bits}A{self.act.bits} {self.act_codes.shape} {self.weight_codes.shape}"
            f" z_a={self.act.zero_point} z_w={self.weight.zero_point} {self.window}"
        )

    @property
    def input(self) -> np.ndarray:
        """Float32 input whose codes are `act_codes`."""
        return self.act.dequantize(self.act_codes)

    @property
    def geometry(self) -> BranchGeometry:
        """What kernels and the accelerator know of the window and the encodings."""
        matrix = self.window.get("branches")
        return BranchGeometry(
            self.act.integer_coefficients,
            self.weight.integer_coefficients,
            int(self.act.offset),
            pair(self.window.get("stride", 1)),
            pads(self.window.get("padding", 0)),
            pair(self.window.get("dilation", 1)),
            self.window.get("groups", 1),
            None if matrix is None else tuple(tuple(map(int, row)) for row in matrix),
        )

    def emit(self, builder: relax.BlockBuilder, x: relax.Expr) -> relax.Var:
        """Return the layer's output as a float graph with quantizers, as front ends make it."""
        axis = 0 if self.weight.is_per_channel else -1
        values = relax.const(self.weight.dequantize(self.weight_codes), "float32")
        a = builder.emit(quantize(x, self.act, layer=self.name))
        w = builder.emit(quantize(values, self.weight, axis, layer=self.name))
        if self.weight_codes.ndim == 2:
            return builder.emit(relax.op.matmul(a, builder.emit(relax.op.permute_dims(w))))
        return builder.emit(
            relax.op.nn.conv2d(
                a,
                w,
                strides=pair(self.window.get("stride", 1)),
                padding=pads(self.window.get("padding", 0)),
                dilation=pair(self.window.get("dilation", 1)),
                groups=self.window.get("groups", 1),
            )
        )

    def accumulators(self, act_codes: np.ndarray | None = None) -> np.ndarray:
        """Integer reference, for other activations where they are given."""
        act_codes = self.act_codes if act_codes is None else act_codes
        operands = (act_codes, self.act, self.weight_codes, self.weight)
        if self.weight_codes.ndim == 2:
            return reference.dense(*operands)
        return reference.conv2d(*operands, **self.window)

    def reference(self) -> np.ndarray:
        """Real value of the accumulators, float32."""
        acc = self.accumulators()
        factor = (self.act.scale.astype(np.float64) * self.weight.scale / 4).astype(np.float32)
        return acc.astype(np.float32) * along(factor, acc.ndim, 1)


def _random_layer(
    seed: int,
    weight: Encoding,
    act: Encoding,
    *,
    channels: int = 8,
    out_channels: int = 8,
    batch: int = 1,
    size: tuple[int, int] = (6, 5),
    kernel: int | tuple[int, int] = 3,
    dense: bool = False,
    name: str = "",
    **window,
) -> Layer:
    rng = np.random.default_rng(seed)
    per_group = channels // window.get("groups", 1)
    image, taps = ((), ()) if dense else (size, pair(kernel))
    act_codes = rng.integers(0, 2**act.bits, (batch, channels, *image), dtype=np.uint8)
    weight_codes = rng.integers(0, 2**weight.bits, (out_channels, per_group, *taps), dtype=np.uint8)
    return Layer(act, weight, act_codes, weight_codes, window, name)


def _module(shapes, body, dtype: str | list[str] = "float32") -> tvm.IRModule:
    builder = relax.BlockBuilder()
    dtypes = [dtype] * len(shapes) if isinstance(dtype, str) else dtype
    types = [relax.TensorType(*pair) for pair in zip(shapes, dtypes, strict=True)]
    inputs = [relax.Var(f"x{i}", ty) for i, ty in enumerate(types)]
    with builder.function("main", inputs):
        with builder.dataflow():
            result = body(builder, *inputs)
            if isinstance(result, (list, tuple)):
                result = relax.Tuple(list(result))
            result = builder.emit_output(result)
        builder.emit_func_output(result)
    return builder.get()


def _outputs(mod: tvm.IRModule, inputs, **options) -> list[np.ndarray]:
    result = tvm_bitenc.build(mod, **options)(*inputs)
    return list(result) if isinstance(result, tuple) else [result]


def _layers_module(layers) -> tvm.IRModule:
    return _module(
        [layer.act_codes.shape for layer in layers],
        lambda builder, *xs: [layer.emit(builder, x) for layer, x in zip(layers, xs)],
    )


def _assert_exact(layers, **options) -> None:
    outputs = _outputs(_layers_module(layers), [layer.input for layer in layers], **options)
    assert len(outputs) == len(layers)
    pairs = zip(layers, outputs)
    wrong = [str(x) for x, y in pairs if not _same(y, x.reference())]
    assert not wrong


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays agree bit for bit."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


@visitor
class _OpNames(PyExprVisitor):
    def __init__(self):
        self.names = []

    def visit_call_(self, call: relax.Call) -> None:
        super().visit_call_(call)
        self.names.append(getattr(call.op, "name", "call"))


def _ops(mod: tvm.IRModule) -> list[str]:
    found = _OpNames()
    found.visit_expr(mod["main"])
    return found.names


def _assert_same_ir(actual: tvm.IRModule, expected: tvm.IRModule) -> None:
    tidy = tvm.transform.Sequential(
        [relax.transform.CanonicalizeBindings(), relax.transform.DeadCodeElimination()]
    )
    tvm.ir.assert_structural_equal(tidy(actual), tidy(expected))


def _run_te(compute, *arrays: np.ndarray) -> np.ndarray:
    function = prim_func(compute, arrays)
    output = function.params[-1].ty
    shape = [int(size) for size in output.shape]
    result = tvm.runtime.tensor(np.zeros(shape, str(output.dtype)))
    tensors = [tvm.runtime.tensor(array) for array in arrays]
    tvm.compile(tvm.IRModule({"main": function}), target="llvm")["main"](*tensors, result)
    return result.numpy()


def _until(name: str):
    return lambda *arguments: default_pipeline(*arguments).until(name)


def _only(*passes):
    return lambda *arguments: Pipeline(list(passes))


@pytest.fixture(scope="session")
def kinds():
    """Encodings by name: a function from bits and scale each."""
    return KINDS


@pytest.fixture(scope="session")
def random_layer():
    """``random_layer(seed, weight, act, channels=, kernel=, dense=, stride=, ...)``: a `Layer`."""
    return _random_layer


@pytest.fixture
def always_shared(monkeypatch):
    """Sums are shared wherever weights are, however small a layer is."""

    def costs(layer, _target):
        return {"": len(layer.weight_codes)}

    monkeypatch.setattr("tvm_bitenc.transform.share_channels.strategy_costs", costs)


@pytest.fixture(scope="session")
def module_of():
    """``module_of(input_shapes, body)``: a module whose `main` returns ``body(builder, *xs)``."""
    return _module


@pytest.fixture(scope="session")
def layers_module():
    """``layers_module(layers)``: one module of independent layers, one output each."""
    return _layers_module


@pytest.fixture(scope="session")
def outputs_of():
    """``outputs_of(mod, inputs, **options of build)``: build, run, and list the outputs."""
    return _outputs


@pytest.fixture(scope="session")
def assert_exact():
    """``assert_exact(layers, **options of build)``: all in one module against the reference."""
    return _assert_exact


@pytest.fixture(scope="session")
def same():
    """``same(a, b)``: whether shape, dtype and every bit agree."""
    return _same


@pytest.fixture(scope="session")
def ops_of():
    """``ops_of(mod)``: names of the ops that `main` calls, in order."""
    return _ops


@pytest.fixture(scope="session")
def assert_same_ir():
    """``assert_same_ir(actual, expected)``: structurally equal, up to aliases."""
    return _assert_same_ir


@pytest.fixture(scope="session")
def run_te():
    """``run_te(compute, *arrays)``: result of a TE definition without any schedule."""
    return _run_te


@pytest.fixture(scope="session")
def until():
    """``until(name)``: the `pipeline` option that stops in front of a pass."""
    return _until


@pytest.fixture(scope="session")
def only():
    """``only(*passes)``: the `pipeline` option of just these passes."""
    return _only


@pytest.hookimpl(tryfirst=True)  # Before pytest leaves out what `-m` does.
@pytest.fixture(scope="module")
def one_thread():
    """Torch in one thread: for small layers a second one would only wait."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_collection_modifyitems(items):
    """Of a test marked ``sweep(n)``, n cases evenly spaced stay in `make test`; others are slow."""
    sweeps = {}
    for item in items:
        if item.get_closest_marker("sweep") and not item.get_closest_marker("slow"):
            sweeps.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in sweeps.values():
        (count,) = cases[0].get_closest_marker("sweep").args
        kept = np.linspace(0, len(cases) - 1, count).round()
        for i in {*range(len(cases))} - {*kept}:
            cases[i].add_marker("slow")


def pytest_runtest_setup(item):
    """Let each test draw the same numbers in any order and on any number of workers."""
    rng = getattr(item.module, "rng", None)
    if isinstance(rng, np.random.Generator):
        rng.bit_generator.state = np.random.default_rng(0).bit_generator.state


@pytest.fixture(scope="session")
def pretrained():
    """``pretrained(file name)``: a network of rapidocr-onnxruntime, which isn't imported itself.

    Imported, it would want OpenCV, and OpenCV the libraries of a desktop.
    """
    spec = importlib.util.find_spec("rapidocr_onnxruntime")
    if spec is None:
        pytest.skip("pip install rapidocr-onnxruntime")
    folder = Path(spec.submodule_search_locations[0]) / "models"
    return lambda name: folder / name
