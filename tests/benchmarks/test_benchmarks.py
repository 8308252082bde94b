"""The measuring tools on tiny shapes: that they run, agree with each other, and print."""

# ruff: noqa: E402  What may be missing is asked for first.
import json
import os
from functools import partial

import numpy as np
import pytest
import torch

for package in ("onnxruntime", "onnx", "openvino", "rich"):
    pytest.importorskip(package, reason="pip install 'tvm-bitenc[bench]'")

import tvm_bitenc
from benchmarks import (
    builds,
    calls,
    codewords,
    concurrent,
    layers,
    models,
    network_peers,
    network_tables,
    networks,
    peers,
    report,
    tiles,
    timing,
    workloads,
)
from tvm_bitenc import encoding
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.nn import QConv2d
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


@pytest.mark.slow
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


@pytest.mark.parametrize("workload", TINY, ids=lambda workload: workload.kind)
def test_openvino_computes_the_layer_that_onnxruntime_does(workload):
    runs = [
        peers.onnxruntime_run(peers.int8_layer(workload)),
        peers.openvino_run(peers.qdq_layer(workload)),
    ]
    rubbish = [np.full(2**i, 77, np.uint8) for i in range(20)]  # Into what inputs have left free.
    expected, y = runs[0]().numpy(), runs[1]()
    assert len(rubbish) == 20 and y.dtype == np.uint8 and np.unique(expected).size > 8
    assert np.abs(y.astype(int) - expected).max() <= 1  # Halves are rounded either way.


def test_openvino_runs_layers_in_bytes():
    for workload in (workloads.WORKLOADS[6], workloads.WORKLOADS[9]):
        graph = peers.compiled(peers.qdq_layer(workload)).get_runtime_model()
        kernels = [op.get_rt_info() for op in graph.get_ordered_ops()]
        names = {"Convolution", "FullyConnected"}
        (kind,) = [k["primitiveType"].astype(str) for k in kernels if k["layerType"] in names]
        assert kind.endswith("_I8")


CHAIN = partial(models.ConvChain, layers=3, channels=8, kernel_size=3)
TINY_NETWORKS = {"tiny chain": models.Network(CHAIN, (1, 8, 6, 6))}


@pytest.mark.sweep(2)
@pytest.mark.parametrize("name", models.NETWORKS)
def test_peers_compute_the_float_twin(name, tmp_path):
    network = models.NETWORKS[name]
    twin, path = network.twin(), tmp_path / "net.onnx"
    network_peers.export(twin, network.shape, path)
    with torch.no_grad():
        expected = twin(torch.from_numpy(peers.random_array(network.shape, np.float32))).numpy()
    found = [peers.onnxruntime_run(path)().numpy(), peers.openvino_run(path)()]
    for y in found:
        np.testing.assert_allclose(y, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.sweep(1)
@pytest.mark.parametrize("name", models.NETWORKS)
def test_networks_of_few_bits_follow_the_twin(name):
    network = models.NETWORKS[name]
    twin, x = network.twin(), torch.from_numpy(peers.random_array(network.shape, np.float32))
    with torch.no_grad():
        outputs = [model(x).flatten() for model in (twin, network.quantized((8, 8), twin))]
        signs = network.quantized((1, 1), twin)(x)
    assert np.corrcoef(*outputs)[0, 1] > 0.4
    assert signs.unique().numel() > 100  # No activation is constant.


@pytest.mark.slow
def test_networks_measure_print_and_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(networks, "NETWORKS", TINY_NETWORKS)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    results, page = tmp_path / "networks.json", tmp_path / "page.md"
    command = ["--bits", "1,1", "--kernels", "--seconds", "0.001", "--json", str(results)]
    (network,) = networks.main(command)
    names = [record["name"] for record in network["contenders"]]
    assert names == [*network_peers.PEERS, "tvm-bitenc W1A1"] and not network["left_out"]
    printed = capsys.readouterr().out
    assert "packed_conv2d" in printed and "speed over best int8" in printed
    page.write_text("# Text\n")
    report.main([str(results), "--page", str(page)])
    assert "1 thread, ONEDNN_MAX_CPU_ISA=AVX2\n" in page.read_text()
    assert page.read_text().count("| tvm-bitenc W1A1 |") == 2


@pytest.mark.slow
def test_networks_print_memory(monkeypatch):
    monkeypatch.setattr(networks, "NETWORKS", TINY_NETWORKS)
    (network,) = networks.main(["--bits", "1,1", "--seconds", "0.001", "--memory"])
    assert all(record["peak_bytes"]["loading"] > 0 for record in network["contenders"])


def test_who_cannot_take_part_is_left_out_with_the_reason(monkeypatch, capsys):
    def refuse(*_):
        raise RuntimeError("no such kernel\nand more")

    def quantize(float_path, path, shape, quantize=network_peers.quantize):
        quantize(float_path, path, shape) if path.name == network_peers.QDQ else refuse()

    monkeypatch.setattr(networks, "NETWORKS", TINY_NETWORKS)
    monkeypatch.setattr(network_peers, "quantize", quantize)
    monkeypatch.setitem(network_peers.RUNTIMES, "openvino", refuse)
    monkeypatch.setattr(tvm_bitenc, "build", refuse)
    (network,) = networks.main(["--bits", "2,2", "--seconds", "0.001"])
    assert set(network["left_out"]) == {"ort qop", "ov int8", "ov fp32", "tvm-bitenc W2A2"}
    printed = capsys.readouterr().out
    assert "tiny chain: ov int8 is left out: RuntimeError: no such kernel\n" in printed
    assert "ort qop is left out: ONNX Runtime's quantizer: RuntimeError: no such" in printed


def test_networks_are_compared_with_the_best_int8():
    seconds = dict(zip(network_peers.PEERS, (4, 3, 2, 8, 7, 6)))
    names = [*seconds, "tvm-bitenc W2A2", "tvm-bitenc W2A2 1 thread", "tvm-bitenc W8A8"]
    records = [
        {"name": name, "seconds": seconds.get(name, 1)}
        | ({} if name in seconds else {"bits": name.split()[1]})
        for name in names
    ]
    network = {"network": "a", "shape": [1, 2], "contenders": records[:-1]}
    other = {"network": "b", "shape": [1, 2], "contenders": records[2:]}
    rows = network_tables.summary_rows([network, other], "best int8")
    assert [row[0] for row in rows] == ["a", "b"]
    bits = network_tables.summary_headings([network, other])[1:]
    assert [dict(zip(bits, row[1:]))["W2A2"] for row in rows] == ["2.00", "2.00"]
    assert [dict(zip(bits, row[1:]))["W8A8"] for row in rows] == ["-", "2.00"]
    (ours,) = (r for r in network_tables.speed_rows(network) if r[0] == "tvm-bitenc W2A2")
    assert ours[1:] == ["1000.000", "4.00", "3.00", "2.00", "8.00", "7.00", "6.00", "2.00"]


def test_sizes_are_compared_with_the_file_in_float():
    sizes = {"ort qdq": 2e6, "ort fp32": 8e6, "tvm-bitenc W2A2": 1e6}
    records = [{"name": k, "seconds": 1, "file_bytes": size} for k, size in sizes.items()]
    records[2] |= {"build_seconds": 3.0, "peak_bytes": {"running": 5e6, "loading": 6e6}}
    headings, *rows = network_tables.size_table({"contenders": records})
    measured = ("", "file MB", "x smaller", "running MB", "loading MB", "build s")
    assert headings == measured and len(rows) == 3
    assert rows[0] == ("ort qdq", "2.00", "4.00", "", "", "")
    assert rows[2] == ("tvm-bitenc W2A2", "1.00", "8.00", "5.0", "6.0", "3.0")


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
    with pytest.raises(SystemExit, match="MobileNetV2"):
        networks.main(["--networks", "no such network"])
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


def test_tiles(tmp_path, capsys):
    options = ["--layers", "1x1 256->256 @14", "--bits", "1,1", "--tiles", "4", "--seconds", "0.05"]
    plain, tiled = tiles.main([*options, "--json", str(tmp_path / "tiles.json")])
    assert (plain["tiles"], plain["speedup"], plain["stored_share"]) == (1, 1.0, 1.0)
    assert tiled["stored_share"] == 0.25 and tiled["speedup"] > 0
    assert json.loads((tmp_path / "tiles.json").read_text())["tiles"] == [plain, tiled]
    assert "layers made of tiles" in capsys.readouterr().out
    page = tmp_path / "page.md"
    page.write_text("# Benchmarks\n")
    report.main([str(tmp_path / "tiles.json"), "--page", str(page)])
    assert "### Layers made of tiles" in page.read_text() and "| 0.250 |" in page.read_text()
    for number in ("0", "7"):
        with pytest.raises(SystemExit, match=f"{number} tiles don't divide the 256 channels"):
            tiles.main([*options[:4], "--tiles", number])


def test_codewords(tmp_path, capsys):
    options = ["--layers", "3x3 64->128/2 @28", "--bits", "1,1", "--seconds", "0.05"]
    options += ["--target", "x86-64-v3", "--json", str(tmp_path / "codewords.json")]
    few, many = codewords.main([*options, "--codewords", "16", "64"])
    assert set(few["seconds"]) == {"xnor", "lut", "int8", "codebook"}
    assert few["chosen"] == "codebook" and few["speedup"] > 0
    assert few["bits_per_weight"] == pytest.approx(4 / 9, rel=0.05)
    # AVX2 looks into tables of 16 bytes.
    assert "codebook" not in many["seconds"] and many["speedup"] is None
    printed = capsys.readouterr().out
    assert "layers of few kernels" in printed
    page = tmp_path / "page.md"
    page.write_text("# Benchmarks\n")
    report.main([str(tmp_path / "codewords.json"), "--page", str(page)])
    assert "### Layers of few kernels" in page.read_text() and "| 0.46 |" in page.read_text()
    with pytest.raises(SystemExit, match="Layers are: 3x3 64 @56"):
        codewords.main(["--layers", "1x1 256->256 @14"])
    with pytest.raises(SystemExit, match="at least one codeword"):
        codewords.main(["--codewords", "16", "0"])


@pytest.mark.slow
def test_builds(capsys, monkeypatch):
    monkeypatch.setattr(builds, "RUNS", 1)
    found = builds.main()
    assert list(found) == list(builds.ROWS) and min(found.values()) > 0
    without, with_torch = list(found.values())[1:3]
    assert without < with_torch  # Torch, which the second process imports, takes the longer half.
    assert "ResNet-18, W8A8" in capsys.readouterr().out
