"""What is decided of a convolution is written into its call, and obeyed."""

from dataclasses import replace

import numpy as np
import pytest

import tvm_bitenc as be
from benchmarks.workloads import codeword_codes, tiled_codes
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import TargetError
from tvm_bitenc.kernel.nest.tile import Tile
from tvm_bitenc.op.packed import packed_conv2d_op
from tvm_bitenc.op.registration import is_call_to, with_attributes
from tvm_bitenc.records.decision import origin_of, tile_of
from tvm_bitenc.records.file import Record, load_records, write_lines
from tvm_bitenc.transform.pipeline import default_pipeline
from tvm_bitenc.transform.schedule import kernel_of
from tvm_bitenc.transform.visit import visit_calls
from tvm_bitenc.tuning.task import tasks_of


@pytest.fixture(scope="module")
def network(random_layer, layers_module, native):
    """A module of one layer, the layer, and its task."""
    layer = random_layer(
        0, Encoding.symmetric(2), Encoding.unsigned(2), channels=64, out_channels=64, padding=1
    )
    mod = layers_module([layer])
    tasks = tasks_of(mod, native, default_pipeline)
    if not tasks:
        pytest.skip("no rules with anything to tune on this CPU: run on one with AVX2 or NEON")
    return mod, layer, tasks[0]


def record_of(task, strategy, **changes):
    tile = replace(task.spaces[strategy].default, **changes)
    return Record(**task.keys, strategy=strategy, tile=tile, speedup=1.5)


@pytest.mark.parametrize("strategy", ["xnor", "lut", "int8"])
def test_a_record_is_applied_and_exact(network, native, tmp_path, strategy):
    mod, layer, task = network
    record = record_of(task, strategy, pixels=1, rows=2)
    write_lines([record], tmp_path / "r.jsonl")
    library = be.build(mod, native, threads=1, database=tmp_path / "r.jsonl")
    np.testing.assert_array_equal(library(layer.input), layer.reference())
    (row,) = library.report().layers
    assert row.strategy == strategy
    assert "pixels=1" in row.schedule and "1.50 x by measured" in row.schedule


@pytest.fixture(params=["codewords", "rows"])
def sharing(request, random_layer, layers_module, native):
    """A module of one layer that shares kernels, or rows of weights, the layer, and its task."""
    weight, act = Encoding.symmetric(1), Encoding.unsigned(2)
    layer = random_layer(0, weight, act, channels=64, out_channels=64, padding=1)
    codes_of = {"codewords": codeword_codes(16), "rows": tiled_codes(4, shuffled=True)}
    codes = codes_of[request.param](np.random.default_rng(0), layer.weight_codes.shape, 1)
    layer = replace(layer, weight_codes=codes)
    mod = layers_module([layer])
    (task,) = tasks_of(mod, native, default_pipeline)
    if request.param == "codewords" and "codebook" not in task.spaces:
        pytest.skip("no vectors that look up codewords: run on a CPU with AVX2 or NEON")
    return mod, layer, task


def test_records_of_layers_that_share_weights(sharing, native, tmp_path):
    mod, layer, task = sharing
    strategy = "codebook" if "codebook" in task.spaces else "xnor"
    write_lines([record_of(task, strategy, pixels=1, rows=2)], tmp_path / "r.jsonl")
    library = be.build(mod, native, threads=1, database=tmp_path / "r.jsonl")
    np.testing.assert_array_equal(library(layer.input), layer.reference())
    (row,) = library.report().layers
    assert row.strategy == strategy
    assert "pixels=1 vectors" in row.schedule and "1.50 x by measured" in row.schedule


@pytest.mark.slow
def test_their_tiles_are_exact(sharing, native, tmp_path):
    check_tiles(sharing, native, tmp_path / "r", 12)


def test_the_call_says_what_was_decided(network, native, tmp_path):
    """Whoever makes or describes the kernel reads it there."""
    mod, _, task = network
    record = record_of(task, "xnor", pixels=1, rows=2)
    write_lines([record], tmp_path / "r.jsonl")
    records = load_records(tmp_path / "r.jsonl", native)
    passes = default_pipeline(native, "auto", records)
    calls = []
    visit_calls(passes.until("bitenc.Schedule").run(mod), lambda call, _: calls.append(call))
    (call,) = [call for call in calls if is_call_to(call, packed_conv2d_op)]
    assert str(call.attrs["strategy"]) == "xnor" and tile_of(call) == record.tile
    assert origin_of(call).startswith("record: pixels=1")
    other = with_attributes(call, strategy="lut", tile=[99, 1, 1, 1, 0])
    with pytest.raises(TargetError, match="no kernel for its record"):
        kernel_of(other, native)


def test_without_records_the_report_says_so(network, native):
    (row,) = be.build(network[0], native, threads=1, database=False).report().layers
    assert row.schedule == "default rule"


def test_a_strategy_that_is_asked_for_wins(network, native, tmp_path):
    mod, _, task = network
    write_lines([record_of(task, "lut", pixels=1)], tmp_path / "r.jsonl")
    library = be.build(mod, native, "int8", threads=1, database=tmp_path / "r.jsonl")
    (row,) = library.report().layers
    assert (row.strategy, row.schedule) == ("int8", "default rule")


@pytest.mark.parametrize("tile", [Tile(0, 0), Tile(1, 1, rows=4), Tile(99, 1), Tile(1, 3)])
def test_an_impossible_record_is_said_and_left_out(network, native, tmp_path, tile):
    mod, layer, task = network
    write_lines([replace(record_of(task, "xnor"), tile=tile)], tmp_path / "r.jsonl")
    with pytest.warns(UserWarning, match="names no kernel.*default schedule"):
        library = be.build(mod, native, threads=1, database=tmp_path / "r.jsonl")
    np.testing.assert_array_equal(library(layer.input), layer.reference())
    assert library.report().layers[0].schedule == "default rule"


def test_a_corrupt_file_is_said_and_left_out(network, native, tmp_path):
    mod, layer, _ = network
    (tmp_path / "r.jsonl").write_text("not JSON\n")
    with pytest.warns(UserWarning, match="line 1.*default schedule"):
        library = be.build(mod, native, threads=1, database=tmp_path / "r.jsonl")
    np.testing.assert_array_equal(library(layer.input), layer.reference())


def test_every_kind_of_tile_is_exact(network, native, tmp_path):
    check_tiles(network, native, tmp_path / "r", 6)


def check_tiles(network, native, path, count):
    """Run some of each strategy's candidates, far from the default."""
    mod, layer, task = network
    rng = np.random.default_rng(0)
    for number in rng.choice(len(task.candidates), count, replace=False):
        strategy, tile = task.candidates[number]
        if strategy == "default":
            continue
        write_lines([Record(**task.keys, strategy=strategy, tile=tile, speedup=2.0)], path)
        library = be.build(mod, native, threads=1, database=path)
        np.testing.assert_array_equal(library(layer.input), layer.reference())
        assert library.report().layers[0].schedule.startswith("record")
