"""Modules compiled for the accelerator against the integer reference, and what stays on the CPU."""

from dataclasses import replace
from itertools import cycle

import pytest
from tvm import relax, tirx

import tvm_bitenc as be
from tests.levels import Chain, chains_module
from tests.vta.cases import needs_verilator
from tvm_bitenc.data import data_folder
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import TargetError, UnsupportedError
from tvm_bitenc.explain import explain
from tvm_bitenc.levels import encoding_of_levels
from tvm_bitenc.report import Report
from tvm_bitenc.target import load_target
from tvm_bitenc.transform.pipeline import default_pipeline
from tvm_bitenc.vta.runtime import SIMULATORS

WINDOWS = [
    dict(padding=1),
    dict(padding=(2, 0, 1, 3), stride=(2, 1), kernel=(3, 2)),
    dict(padding=2, dilation=(1, 2), stride=2),
    dict(kernel=1, stride=2),
]
both = pytest.mark.parametrize(
    "simulator", ["functional", pytest.param("verilog", marks=needs_verilator)]
)


def layers_of(act, weight_bits, random_layer, kinds, channels, **options):
    """Layers that read one input, with weights of different bits; windows take turns."""
    codes = random_layer(0, act, act, channels=channels, batch=2, size=(5, 4), **options).act_codes
    turns = zip(weight_bits, cycle(WINDOWS[act.bits % 2 :]), cycle(kinds.values()))
    return [
        replace(
            random_layer(m, kind(m, 2.0), act, channels=channels, out_channels=9, name=f"w{m}",
                         **({} if options else window), **options),
            act_codes=codes,
        )
        for m, window, kind in turns
    ]  # fmt: skip


@pytest.fixture(scope="module")
def check(module_of, same):
    """``check(layers, simulator)``: all of them on the accelerator, from one input."""

    def check(layers, simulator=None):
        mod = module_of([layers[0].act_codes.shape], lambda b, x: [y.emit(b, x) for y in layers])
        lib = be.build(mod, target="vta", simulator=simulator)
        outputs = lib(layers[0].input)
        assert [row.strategy for row in lib.report().layers] == ["vta"] * len(layers)
        wrong = [str(y) for y, out in zip(layers, outputs) if not same(out, y.reference())]
        assert not wrong

    return check


@pytest.mark.sweep(4)
@pytest.mark.parametrize("options", [{}, {"dense": True}], ids=["conv2d", "dense"])
@pytest.mark.parametrize("act_bits", range(1, 9))
def test_all_bits(act_bits, options, random_layer, kinds, check):
    act = list(kinds.values())[act_bits % 3](act_bits, 2.0)
    check(layers_of(act, range(1, 9), random_layer, kinds, channels=70, **options))


@pytest.mark.sweep(1)
@needs_verilator
@pytest.mark.parametrize("act_bits", [1, 3, 8])
def test_bits_on_verilog(act_bits, random_layer, kinds, check):
    act = list(kinds.values())[(act_bits + 1) % 3](act_bits, 2.0)
    for options in ({}, {"dense": True}):
        layers = layers_of(act, (1, 2, 4, 8), random_layer, kinds, channels=67, **options)
        check(layers, "verilog")


@pytest.fixture(scope="module")
def network(module_of, random_layer):
    """Two layers with thresholds between; the second, of two groups, isn't supported."""
    first = random_layer(
        0, Encoding.signed(2, 2.0), Encoding.unsigned(2, 2.0), padding=1, batch=2, name="first"
    )
    second = random_layer(
        1, Encoding.signed(1, 2.0), Encoding.unsigned(3, 4.0), groups=2, name="second"
    )

    def body(builder, x):
        y = builder.emit(relax.op.nn.relu(first.emit(builder, x)))
        return [y, second.emit(builder, y)]

    return module_of([first.act_codes.shape], body), first.input


@both
def test_the_rest_runs_on_the_cpu(simulator, network, same):
    mod, x = network
    lib = be.build(mod, target="vta", simulator=simulator)
    for a, b in zip(lib(x), be.build(mod)(x)):
        assert same(a, b)
    first, second = lib.report().layers
    assert (first.strategy, first.cpu_reason) == ("vta", "") and first.work.cycles > 0
    assert second.strategy in ("xnor", "lut", "int8") and second.work is None
    assert second.cpu_reason.startswith("groups read 4 channels and write 4")
    assert "cpu: second: groups read 4 channels and write 4" in str(lib.report())


def test_one_call_runs_one_program_per_sample(network, monkeypatch):
    calls, functional = [], SIMULATORS["functional"]
    monkeypatch.setitem(
        SIMULATORS, "functional", lambda *args: calls.append(args[0]) or functional(*args)
    )
    mod, x = network
    be.build(mod, target="vta")(x)
    assert [[layer.name for layer in program.layers] for program in calls] == [["first"]] * 2


def test_explain_is_the_report_of_a_build(network):
    mod, _ = network
    report = be.build(mod, target="vta").report()
    assert explain(mod, "vta") == report
    assert Report.from_dict(report.to_dict()) == report


def test_a_strategy_that_is_asked_for_takes_the_cpu(network, same):
    mod, x = network
    lib = be.build(mod, target="vta", strategy={"first": "xnor"})
    assert lib.report().layers[0].strategy == "xnor"
    assert lib.report().layers[0].cpu_reason == "strategy 'xnor' was asked for"
    be.build(mod, target="vta", strategy={"first": "auto"})
    with pytest.raises(UnsupportedError, match="no such layers. The layers are first"):
        be.build(mod, target="vta", strategy={"absent": "auto"})
    assert same(lib(x)[1], be.build(mod)(x)[1])


def test_dynamic_batches(module_of, random_layer, same):
    layer = random_layer(
        0, Encoding.signed(2, 2.0), Encoding.unsigned(2, 2.0), batch=3, padding=1, name="a"
    )

    batch = tirx.Var("n", "int64")
    mod = module_of([(batch, *layer.act_codes.shape[1:])], layer.emit)
    lib = be.build(mod, target="vta")
    assert lib.report().layers[0].strategy == "vta"
    for count in (1, 3):
        assert same(lib(layer.input[:count]), layer.reference()[:count])


@both
def test_libraries_are_read_back(simulator, network, tmp_path, same):
    mod, x = network
    lib = be.build(mod, target="vta", simulator=simulator)
    loaded = be.load(lib.export_library(tmp_path / "net.so"))
    assert loaded.report() == lib.report()
    assert loaded.target.accelerator == lib.target.accelerator
    assert all(same(a, b) for a, b in zip(loaded(x), lib(x)))


@needs_verilator
def test_the_report_has_counters_of_the_last_run(network):
    mod, x = network
    lib = be.build(mod, target="vta", simulator="verilog")
    before = lib.report()
    lib(x)
    after = lib.report()
    (predicted,), (counted,) = before.works, after.works
    assert counted.is_measured and not predicted.is_measured
    assert counted.dram_bytes == predicted.dram_bytes
    assert abs(predicted.cycles / counted.cycles - 1) < 0.1
    assert after.to_dict()["cycles"] == counted.cycles == after.cycles
    lib(x)
    assert lib.report() == after


def test_a_file_gives_the_sizes(network, tmp_path, same):
    mod, x = network
    default = data_folder("targets") / "vta" / "default.toml"
    text = default.read_text().replace("DM = 8", "DM = 16").replace("DN = 8", "DN = 2")
    (tmp_path / "wide.toml").write_text(text)
    lib = be.build(mod, target=tmp_path / "wide.toml")
    assert lib.report().target == "wide" and lib.report().macs_per_cycle == 16 * 2 * 64
    assert same(lib(x)[0], be.build(mod)(x)[0])
    for text, message in (("DM = 8", "array"), ("DM = 5", "array")):
        (tmp_path / "bad.toml").write_text(f"[array]\n{text}\n")
        with pytest.raises(TargetError, match=message):
            be.build(mod, target=tmp_path / "bad.toml")


def test_wrong_simulators(network):
    mod, _ = network
    with pytest.raises(TargetError, match="'spice': isn't known"):
        be.build(mod, target="vta", simulator="spice")
    with pytest.raises(TargetError, match="target 'native' is a CPU"):
        be.build(mod, simulator="functional")


def test_layers_too_large_for_the_buffers(network, tmp_path, same):
    mod, x = network
    default = data_folder("targets") / "vta" / "default.toml"
    (tmp_path / "small.toml").write_text(default.read_text().replace("weight = 2048", "weight = 8"))
    lib = be.build(mod, target=tmp_path / "small.toml")
    row = lib.report().layers[0]
    assert "needs 18 rows of the accelerator's weight buffer" in row.cpu_reason and not row.work
    assert same(lib(x)[0], be.build(mod)(x)[0])


def test_programs_are_reported_by_the_accelerator_that_they_are_for(network):
    mod, _ = network
    cut_out = default_pipeline(load_target("vta")).until("bitenc.Schedule").run(mod)
    first, _ = explain(mod, "vta").layers
    assert explain(cut_out, "native").layers[0].work == first.work


def test_chains_of_levels(module_of, same):
    """Thermometers flow from layer to layer; steps that aren't powers of two stay on the CPU."""
    powers = encoding_of_levels([0, 4, 8, 9], [-1.0, 0.25, 1.5], 0.5, 4.0)
    others = encoding_of_levels([0, 3, 8, 12], [-1.0, 0.25, 1.5], 0.5, 4.0)
    assert powers.coefficients == (4, 4, 1) and others.coefficients == (3, 5, 4)
    chains = [Chain(0, "powers", powers), Chain(1, "half", replace(powers, zero_point=2.5))]
    chains.append(Chain(1, "others", others))
    lib = be.build(chains_module(chains, module_of), target="vta")
    outputs = lib(*(chain.x for chain in chains))
    assert not [c.name for c, y in zip(chains, outputs) if not same(y, c.reference())]
    for row in lib.report().layers:
        is_other = row.name.startswith("others")
        assert (row.strategy == "vta") != is_other
        assert ("1, 2, 4, ... times a number apart" in row.cpu_reason) == is_other
