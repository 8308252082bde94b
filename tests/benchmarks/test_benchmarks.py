"""The measuring tools on tiny shapes: that they run, agree with each other, and print."""

# ruff: noqa: E402  What may be missing is asked for first.
import json
import os
from functools import partial

import numpy as np
import pytest
import torch

for package in ("onnxruntime", "onnx", "rich"):
    pytest.importorskip(package, reason="pip install 'tvm-bitenc[bench]'")

import tvm_bitenc
from benchmarks import (
    calls,
    concurrent,
    layers,
    networks,
    peers,
    report,
    resnet_peers,
    timing,
    workloads,
)
from tvm_bitenc import encoding
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.nn import QConv2d, ResNet18
from tvm_bitenc.transform import no_lowering

TINY = [
    workloads.Workload("3x3 tiny", "3x3", 16, 32, 6, 3, 2, 1),
    workloads.Workload("dense tiny", "dense", 96, 70, batch=3),
    workloads.Workload("depthwise tiny", "depthwise", 16, 16, 6, 3, 1, 1, groups=16),
]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_layers_measure_print_and_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(layers, "WORKLOADS", TINY)
    results, page = tmp_path / "layers.json", tmp_path / "page.md"
    command = ["--bits", "1,1", "2,3", "--strategies", "--seconds", "0.001"]
    records = layers.main([*command, "--json", str(results)])
    assert len(records) == 2 * len(TINY)
    assert all(min(record["seconds"].values()) > 0 for record in records)
    printed = capsys.readouterr().out
    assert all(workload.name in printed for workload in TINY) and "geometric mean" in printed
    content = json.loads(results.read_text())
    assert content["machine"]["cpu"] and content["machine"]["versions"]["onnxruntime"]
    page.write_text("# Text\n")
    for _ in range(2):  # The second time replaces the tables of the first.
        report.main([str(results), "--page", str(page)])
        text = page.read_text()
        assert text.startswith("# Text\n") and text.count("### Layers") == 1
        assert text.count("| 3x3 tiny |") == 2 and content["machine"]["cpu"] in text


@pytest.mark.parametrize("workload", TINY, ids=lambda workload: workload.kind)
def test_layer_modules_compute_the_layer(workload, same):
    act_bits = 3
    module = workloads.layer_module(workload, 2, act_bits)
    planes = workloads.random_planes(workload, act_bits)
    y = tvm_bitenc.build(module, threads=1, pipeline=workloads.planes_pipeline)(planes)
    assert same(y, tvm_bitenc.build(module, pipeline=no_lowering)(planes))
    codes = encoding.unpack(y, workload.out_channels)
    assert np.unique(codes).size == 2**act_bits  # The thresholds leave no code out.
    assert y.shape[:3] == (workload.batch, workload.out_size, workload.out_size)


def test_thresholds_are_even_steps_of_a_standard_deviation():
    rng = np.random.default_rng(0)
    weight, act = Encoding.symmetric(2), Encoding.unsigned(2)
    integers = weight.integers(rng.integers(0, 4, (8, 256), dtype=np.uint8))
    thresholds, direction = workloads.random_thresholds(integers, act, rng)
    codes = rng.integers(0, 4, (2000, 256), dtype=np.uint8)
    acc = direction * (act.integers(codes) @ integers.T)
    reached = (acc[None] >= thresholds[:, None]).sum(0)
    expected = [0.159, 0.341, 0.341, 0.159]  # Of a normal distribution cut at -1, 0 and 1.
    assert np.abs(np.bincount(reached.ravel()) / reached.size - expected).max() < 0.03


def test_onnxruntime_keeps_its_own_layouts():
    workload = workloads.WORKLOADS[0]
    model, level = peers.float_layer(workload)
    assert [node.domain for node in model.graph.node] == ["com.microsoft.nchwc"]
    assert level == peers.DISABLED
    (node,) = peers.int8_layer(workload).graph.node
    assert node.op_type == "QLinearConv" and node.domain == "com.microsoft"
    peers.onnxruntime_run(peers.int8_layer(workload))()


def test_float_network_is_the_twin(tmp_path):
    twin = ResNet18(None, None, 10, width=8).eval()
    for module in twin.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    image = peers.random_array(resnet_peers.IMAGE_SHAPE, np.float32)
    session = peers.session(resnet_peers.float_network(twin))
    (logits,) = session.run(None, {"x": image})
    with torch.no_grad():
        np.testing.assert_allclose(logits, twin(torch.from_numpy(image)), atol=1e-5)


@pytest.mark.slow
def test_networks_measure_print_and_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(networks, "ResNet18", partial(ResNet18, width=8))
    results, page = tmp_path / "networks.json", tmp_path / "page.md"
    command = ["--bits", "1,1", "--kernels", "--seconds", "0.01", "--json", str(results)]
    records = networks.main(command)
    assert [record["name"] for record in records] == [*networks.PEERS, "tvm-bitenc W1A1"]
    assert all(record["peak_bytes"]["loading"] > 0 for record in records)
    assert "packed_conv2d" in capsys.readouterr().out
    page.write_text("# Text\n")
    report.main([str(results), "--page", str(page)])
    assert "| tvm-bitenc W1A1 |" in page.read_text()


def test_threads_of_ours_leave_the_cores_to_the_peers():
    workload = TINY[0]
    library = tvm_bitenc.build(
        workloads.layer_module(workload, 1, 1), threads=2, pipeline=workloads.planes_pipeline
    )
    workloads.library_run(library, workloads.random_planes(workload, 1))()
    assert os.sched_getaffinity(0) == workloads.CORES


def test_fastest_tells_slow_from_fast():
    contenders = {"fast": lambda: sum(range(10)), "slow": lambda: sum(range(9999))}
    seconds = timing.fastest(contenders, 0, threads=2)
    assert 0 < 10 * seconds["fast"] < seconds["slow"]


@pytest.mark.parametrize("limits, text", [({"xnor": 1000}, "88"), ({}, "-")], ids=str)
def test_no_percentage_is_printed_where_rates_are_unknown(limits, text):
    seconds = {layers.OURS: 1e-9, **dict.fromkeys(layers.PEERS, 1.0)}
    record = {"layer": "a", "strategy": "xnor", "macs": 876, "seconds": seconds, "limits": limits}
    assert layers.layer_row(record)[layers.LAYER_HEADINGS.index("% of limit")] == text


def test_wrong_options_say_what_is_right(capsys):
    with pytest.raises(SystemExit, match="3x3 64 @56"):
        layers.main(["--layers", "no such layer"])
    with pytest.raises(SystemExit):
        layers.main(["--bits", "2"])
    assert "isn't a pair like 2,2" in capsys.readouterr().err


def test_many_callers_of_a_small_image(monkeypatch, capsys):
    def one_layer(weight_bits, act_bits):
        """Instead of ResNet-18, which takes half a minute to compile."""
        return QConv2d(3, 8, 3, weight_bits=weight_bits, act_bits=act_bits)

    monkeypatch.setattr(concurrent, "ResNet18", one_layer)
    found = concurrent.main(["--callers", "1", "2", "--seconds", "0.05", "--image", "32"])
    assert list(found) == [1, 2] and min(found.values()) > 0
    printed = capsys.readouterr().out
    assert "ResNet-18 W2A2, 32 pixels" in printed and "KiB for each further caller" in printed


@pytest.mark.slow
def test_calls(capsys):
    found = calls.main(["--bits", "1,1"])
    assert set(found) == {"library", "ort fp32", "call", "beside", "speedup"}
    assert all(value > 0 for value in found.values())
    printed = capsys.readouterr().out
    assert "ResNet-18 W1A1" in printed and "2 threads" in printed and "imports" not in printed
