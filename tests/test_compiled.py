"""`CompiledModel`: any array in, numpy out; times, report, and what is refused."""

import numpy as np
import pytest
import torch
from tvm import relax, runtime

import tvm_bitenc as be
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import BitencError, TargetError, UnsupportedError
from tvm_bitenc.strategy import STRATEGIES
from tvm_bitenc.target import native_target
from tvm_bitenc.transform import no_lowering

ACT, WEIGHT = Encoding.unsigned(2, 2.0), Encoding.symmetric(3, 2.0)


@pytest.fixture(scope="module")
def layer(random_layer):
    return random_layer(0, WEIGHT, ACT, name="conv", out_channels=12, padding=1)


@pytest.fixture(scope="module")
def lib(layer, module_of):
    return be.build(module_of([layer.act_codes.shape], layer.emit))


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x,
        torch.from_numpy,
        lambda x: torch.from_numpy(x).requires_grad_(),
        runtime.tensor,
        np.asfortranarray,
        lambda x: torch.from_numpy(x.copy()).to(memory_format=torch.channels_last),
        list,
    ],
    ids=["numpy", "torch", "gradients", "dlpack", "strided", "channels last", "list of arrays"],
)
def test_arrays_of_any_kind(convert, lib, layer, same):
    assert same(lib(convert(layer.input)), layer.reference())


def test_run_is_call(lib, layer, same):
    assert same(lib.run(layer.input), lib(layer.input))


def test_a_result_survives_the_next_run(lib, layer):
    first = lib(layer.input)
    kept = first.copy()
    lib(np.zeros_like(layer.input))
    assert np.array_equal(first, kept)


def test_several_outputs_are_a_tuple(module_of):
    lib = be.build(module_of([(2, 3)], lambda b, x: [b.emit(relax.op.nn.relu(x)), x]))
    x = np.array([[-1, 0, 1], [2, -2, 3]], np.float32)
    outputs = lib(x)
    assert isinstance(outputs, tuple) and len(outputs) == len(lib.outputs) == 2
    assert np.array_equal(outputs[0], np.maximum(x, 0)) and np.array_equal(outputs[1], x)


def test_inputs_and_outputs_are_described(lib, layer):
    (given,), (made,) = lib.inputs, lib.outputs
    assert (given.name, given.shape, given.dtype) == ("x0", layer.act_codes.shape, "float32")
    assert (made.shape, made.dtype) == (layer.reference().shape, "float32")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x: (x[:, :-1],), r"'x0'.*\(1, 7, 6, 5\).*compiled for float32 \(1, 8, 6, 5\)"),
        (lambda x: (x[0],), r"'x0'.*\(8, 6, 5\)"),
        (lambda x: (x.astype(np.float64),), r"'x0'.*float64.*Convert it"),
        (lambda x: (torch.from_numpy(x).int(),), r"'x0'.*int32"),
        (lambda x: (), r"takes 1 inputs, not 0.*Give x0"),
        (lambda x: (x, x), r"takes 1 inputs, not 2"),
    ],
)
def test_wrong_inputs_are_named(change, message, lib, layer):
    for method in (lib, lib.benchmark):
        with pytest.raises(BitencError, match=message):
            method(*change(layer.input))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_benchmark(strategy, layer, module_of):
    lib = be.build(module_of([layer.act_codes.shape], layer.emit), strategy=strategy)
    times = lib.benchmark(layer.input, number=25, repeat=4)
    assert times.seconds.shape == (4,) and 0 < times.best == times.seconds.min()
    assert all(seconds >= 0 for seconds in times.layers.values())
    (name,) = [name for name in times.layers if "packed_conv2d" in name]
    assert name == f"packed_conv2d_conv_{strategy}" and times.layers[name] > 0
    lines = str(times).splitlines()
    assert "us per run" in lines[0] and len(lines) == 1 + len(times.layers)
    assert [line for line in lines if line.endswith(f"%  {name}")]


def test_report_of_a_layer(lib, layer):
    report = lib.report()
    (row,) = report.layers
    assert (row.name, row.weight_bits, row.act_bits, row.out_bits) == ("conv", 3, 2, 32)
    assert row.shape == "3x3 8->12 @6x5" and row.macs == 6 * 5 * 9 * 8 * 12
    assert row.float_bytes == 4 * 9 * 8 * 12 and row.stored_bytes > 0
    assert row.strategy in STRATEGIES and not report.float_layers


def test_threads_are_set_and_compute_the_same(layer, module_of, same):
    mod = module_of([layer.act_codes.shape], layer.emit)
    outputs = [be.build(mod, threads=threads)(layer.input) for threads in (2, 1)]
    assert all(same(y, layer.reference()) for y in outputs)


def test_code_for_another_cpu_is_refused_before_it_runs(layer, module_of):
    other = "x86-64-v3" if native_target().architecture == "aarch64" else "aarch64"
    lib = be.build(module_of([layer.act_codes.shape], layer.emit), target=other)
    for method in (lib, lib.benchmark):
        with pytest.raises(TargetError, match=r"this machine is.*target='native'"):
            method(layer.input)


def test_what_build_refuses(module_of):
    mod = module_of([(2, 3)], lambda b, x: b.emit(relax.op.nn.relu(x)))
    with pytest.raises(TargetError, match="'z80'.*no such name.*path to a TOML"):
        be.build(mod, target="z80")
    with pytest.raises(UnsupportedError, match="'magic'.*Use 'auto' or one of"):
        be.build(mod, strategy="magic")
    with pytest.raises(UnsupportedError, match="no Relax function 'main'.*from_torch"):
        be.build(type(mod)({}))


def test_a_module_without_quantizers_reports_what_stays_float(module_of):
    weight = relax.const(np.ones((4, 3, 1, 1), np.float32))
    mod = module_of([(1, 3, 2, 2)], lambda b, x: b.emit(relax.op.nn.conv2d(x, weight)))
    for options in ({}, {"pipeline": no_lowering}):
        report = be.build(mod, **options).report()
        assert not report.layers
        assert [layer.reason for layer in report.float_layers] == [
            "its input isn't quantized: it is an input of the network"
        ]


@pytest.mark.parametrize("other", [torch.nn.ReLU(), "model.onnx", None])
def test_what_is_no_module_is_refused(other):
    with pytest.raises(BitencError, match=f"is of class {type(other).__name__}. Import it with"):
        be.build(other)
