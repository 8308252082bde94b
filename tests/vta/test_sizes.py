"""Machines of other sizes: DM, DN and DK, exact on both simulators, and what none can be."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tvm_bitenc as be
from tests.vta.cases import needs_verilator
from tests.vta.test_compile_pool import check as check_pool
from tests.vta.test_network import NETWORKS, Joined, Narrow, module_of, outputs_of
from tests.vta.test_side_by_side import side_by_side
from tests.vta.test_tables import rising_table
from tvm_bitenc.accelerator import DEPTHS, Accelerator, load_accelerator
from tvm_bitenc.data import data_folder
from tvm_bitenc.encoding import Encoding, pack, unpack
from tvm_bitenc.errors import TargetError
from tvm_bitenc.vta.compile_layer import compile_conv, conv_piece, output_of
from tvm_bitenc.vta.cost import cycles
from tvm_bitenc.vta.counters import predicted
from tvm_bitenc.vta.functional import FunctionalSimulator
from tvm_bitenc.vta.link import link
from tvm_bitenc.vta.program import Input
from tvm_bitenc.vta.stream import OUTPUT
from tvm_bitenc.vta.tensor import Tensor, whole
from tvm_bitenc.vta.tensor import side_by_side as side_by_side_views
from tvm_bitenc.vta.verilator import VerilatorSimulator

SIZES = st.builds(
    Accelerator,
    channels=st.sampled_from([1, 2, 4, 8, 16, 32]),
    pixels=st.sampled_from([1, 2, 4, 8, 16]),
    depth=st.sampled_from(DEPTHS),
    act_rows=st.just(4096),
    param_rows=st.just(4096),
)


def execute(program, words, accelerator, verilog):
    memory = program.image(words)
    if verilog:
        run = VerilatorSimulator(accelerator, memory).run_words(len(program.instructions))
        counted = predicted(program, accelerator)
        assert (run.steps, run.reads, run.writes) == (counted.steps, counted.reads, counted.writes)
        # The model knows no load that waits for a store, which small layers do often.
        assert abs(cycles(program.instructions, accelerator) / run.cycles - 1) < 0.1
    else:
        FunctionalSimulator(accelerator, memory).run(program.instructions)
    return memory[program.output_address :]


@pytest.fixture(scope="module")
def check(conv_layer, expected, planes):
    """Accumulators, codes, copies of codes, and codes of a table with a residual."""

    def check(layer, accelerator, out_bits=2, verilog=False):
        plain, static = conv_layer(layer), conv_layer(layer, out_bits)
        acc, codes = expected(layer, plain), expected(layer, static)
        for each, wanted in ((plain, acc), (static, codes)):
            program = compile_conv(each, accelerator)
            words = execute(program, planes(layer), accelerator, verilog)
            assert np.array_equal(output_of(each, program, words), wanted)
        copied = replace(
            static, copies=2, thresholds=np.concatenate([static.thresholds] * 2, axis=1),
            direction=np.concatenate([static.direction] * 2),
        )  # fmt: skip
        program = compile_conv(copied, accelerator)
        words = execute(program, planes(layer), accelerator, verilog)
        own = unpack(codes, static.out_channels)
        wanted = pack(np.concatenate([own, own], axis=-1), out_bits)
        assert np.array_equal(output_of(copied, program, words), wanted)
        residual = np.random.default_rng(0).integers(0, 4, own.shape).astype(np.uint8)
        table = rising_table(out_bits, 2, 2)
        program = compile_conv(static, accelerator, table)
        operands = np.concatenate([planes(layer).reshape(-1), pack(residual, 2).reshape(-1)])
        words = execute(program, operands, accelerator, verilog)
        wanted = pack(table[own, residual], 2)
        assert np.array_equal(words.reshape(wanted.shape), wanted)

    return check


@settings(max_examples=25, deadline=None)
@given(data=st.data(), accelerator=SIZES)
def test_any_size_is_exact(data, accelerator, random_layer, check):
    weight_bits, act_bits = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    layer = random_layer(
        data.draw(st.integers(0, 99)),
        Encoding.signed(weight_bits),
        Encoding.unsigned(act_bits),
        channels=data.draw(st.sampled_from([1, 3, 31, 32, 33, 64, 65, 128, 129, 200])),
        out_channels=data.draw(st.integers(1, 80)),
        size=data.draw(st.tuples(st.integers(3, 6), st.integers(3, 6))),
        kernel=data.draw(st.integers(1, 3)),
        stride=data.draw(st.integers(1, 2)),
        padding=data.draw(st.integers(0, 1)),
    )
    check(layer, accelerator, data.draw(st.integers(1, 3)))


@settings(max_examples=30, deadline=None)
@given(
    accelerator=SIZES,
    bits=st.integers(1, 4),
    channels=st.sampled_from([1, 31, 64, 65, 129, 200]),
    stride=st.integers(1, 2),
)
def test_any_size_pools(accelerator, bits, channels, stride):
    options = dict(kernel=(3, 2), strides=(stride, stride), padding=(1, 0, 1, 1))
    check_pool(bits, (1, 6, 5, channels), accelerator, **options)


@pytest.fixture(scope="module")
def check_codes(conv_layer, expected, planes):
    """Codes of a layer, whose planes may lie side by side."""

    def check(layer, accelerator, reads=False, writes=False, verilog=False):
        static = conv_layer(layer, 2)
        packed = dict(reads_packed=reads, writes_packed=writes)
        program = compile_conv(static, accelerator, **packed)
        codes = layer.act_codes.transpose(0, 2, 3, 1)
        words = side_by_side(codes, layer.act.bits) if reads else planes(layer)
        found, wanted = execute(program, words, accelerator, verilog), expected(layer, static)
        if writes:
            wanted = side_by_side(unpack(wanted, static.out_channels), 2)
            found = unpack(found.reshape(wanted.shape)[..., None, :], 2 * static.out_channels)
            wanted = unpack(wanted[..., None, :], 2 * static.out_channels)
        assert np.array_equal(found.reshape(wanted.shape), wanted)

    return check


@settings(max_examples=25, deadline=None)
@given(data=st.data(), accelerator=SIZES)
def test_any_size_of_groups(data, accelerator, random_layer, check_codes):
    groups, per_group = data.draw(st.integers(2, 5)), data.draw(st.sampled_from([4, 12, 40, 64]))
    is_depthwise = data.draw(st.booleans())
    channels = data.draw(st.sampled_from([2, 40, 70, 200])) if is_depthwise else groups * per_group
    layer = random_layer(
        *(data.draw(st.integers(0, 99)), Encoding.signed(2), Encoding.unsigned(2)),
        channels=channels,
        out_channels=channels if is_depthwise else groups * accelerator.channels,
        groups=channels if is_depthwise else groups,
        padding=1,
    )
    check_codes(layer, accelerator)


@pytest.mark.parametrize("channels, groups", [(80, 2), (120, 3), (70, 70)])
def test_groups_that_begin_in_the_upper_half_of_a_word(channels, groups, random_layer, check_codes):
    """Where a word of the memory is two of the array."""
    accelerator = Accelerator(depth=32, stages=1)
    layer = random_layer(
        *(0, Encoding.signed(2), Encoding.unsigned(2)), channels=channels, groups=groups,
        out_channels=channels if groups == channels else groups * 8, padding=1,
    )  # fmt: skip
    check_codes(layer, accelerator)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), accelerator=SIZES)
def test_any_size_side_by_side(data, accelerator, random_layer, check_codes):
    layer = random_layer(
        *(data.draw(st.integers(0, 99)), Encoding.symmetric(2)),
        Encoding.unsigned(data.draw(st.integers(1, 4))),
        channels=4 * data.draw(st.integers(1, 40)),
        out_channels=accelerator.channels * data.draw(st.integers(1, 5)),
        padding=1,
    )
    check_codes(layer, accelerator, data.draw(st.booleans()), data.draw(st.booleans()))


MACHINES = [
    Accelerator(channels=16, pixels=2, depth=32, stages=1),
    Accelerator(channels=1, pixels=4, depth=128),
    Accelerator(channels=2, pixels=1, depth=256),
]


@needs_verilator
@pytest.mark.slow  # Verilator builds other machines.
@pytest.mark.parametrize(
    "accelerator", MACHINES, ids=lambda x: f"{x.channels}x{x.depth}x{x.pixels}"
)
def test_sizes_on_verilog(accelerator, random_layer, check, check_codes):
    encodings = Encoding.signed(2), Encoding.unsigned(2)
    for channels, options in ((65, dict(padding=1)), (200, dict(kernel=1)), (31, dict(stride=2))):
        layer = random_layer(
            channels, *encodings, channels=channels, out_channels=40, size=(6, 7), **options
        )
        check(layer, accelerator, verilog=True)
    for options in (dict(groups=72), dict(groups=3, out_channels=48)):
        options = dict(channels=72, out_channels=72) | options
        check_codes(random_layer(1, *encodings, **options), accelerator, verilog=True)
    layer = random_layer(2, *encodings, channels=28, out_channels=48, padding=1)
    check_codes(layer, accelerator, reads=True, writes=True, verilog=True)
    for channels in (33, 200):
        for bits in (1, 3):
            options = dict(kernel=(3, 3), strides=(2, 2), padding=(1, 1, 1, 1))
            check_pool(bits, (1, 9, 7, channels), accelerator, verilog=True, **options)


WRONG = [
    (dict(channels=3), "DM = 3 doesn't divide 64"),
    (dict(channels=128), "DM = 128 doesn't divide 64"),
    (dict(channels=64, depth=32), "DM = 64 bits of DK = 32"),
    (dict(pixels=6), "DN = 6 isn't a power of two"),
    (dict(pixels=1024), "a tap's offset"),
    (dict(depth=96), "DK = 96"),
    (dict(stages=3), "popcount of 3 stages"),
    (dict(param_rows=3), "param = 3 rows are too few"),
    (dict(out_rows=1), "out = 1 rows are too few"),
    (dict(weight_rows=16385), "field reaches all of weight = 16385 rows"),
    (dict(tap_rows=16385), "field reaches all of tap = 16385 rows"),
    (dict(float_units=1, channels=1), "not DM = 1, DN = 8"),
    (dict(float_units=2, pixels=1), "not DM = 8, DN = 1"),
]


@pytest.mark.parametrize("sizes, cause", WRONG, ids=str)
def test_what_the_verilog_cannot_run_is_refused(sizes, cause):
    with pytest.raises(TargetError, match=cause):
        Accelerator(**sizes)


def test_files_are_refused_with_the_reason(tmp_path):
    text = (data_folder("targets") / "vta" / "default.toml").read_text()
    path = tmp_path / "deep.toml"
    path.write_text(text.replace("DK = 64", "DK = 256").replace("DM = 8", "DM = 1"))
    machine = load_accelerator(path)
    assert (machine.depth, machine.macs_per_cycle) == (256, 256 * 8)
    path.write_text(text.replace("DK = 64", "DK = 48"))
    with pytest.raises(TargetError, match="DK = 48"):
        load_accelerator(path)


def joined(static, counts, accelerator):
    """Compile a layer on parts of so many channels, which lie in tensors of their own."""
    batch, height, width, _ = static.input_shape
    bits = static.act_bits
    tensors = [
        Tensor(str(i), batch * height, width, bits, -(-count // 64))
        for i, count in enumerate(counts)
    ]
    view = side_by_side_views([whole(x, count) for x, count in zip(tensors, counts)])
    piece = conv_piece(static, accelerator, source=view)
    inputs, addresses, end = [], {}, 0
    for i, tensor in enumerate(tensors):
        inputs.append(Input(i, end, tensor.size))
        addresses[tensor.name] = end
        end += tensor.size
    outputs = [replace(piece.outputs[0], address=end)]
    words = end + piece.fragment.output_words
    return link([piece.fragment], addresses | {OUTPUT: end}, words, inputs, outputs)


@pytest.mark.parametrize(
    "verilog", [False, pytest.param(True, marks=[needs_verilator, pytest.mark.slow])]
)
def test_what_was_in_a_row_is_cleared(verilog, random_layer, conv_layer, expected, planes):
    """A pixel of one word; and parts of one word and of two, with words between them that count."""
    accelerator = MACHINES[2]
    encodings = Encoding.signed(2), Encoding.unsigned(2)
    full, narrow, parts = (
        random_layer(0, *encodings, channels=channels, out_channels=4)
        for channels in (1024, 33, 94)
    )
    full.act_codes[:] = 3
    statics = [conv_layer(layer, 2) for layer in (full, narrow, parts)]
    programs = [compile_conv(static, accelerator) for static in statics[:2]]
    programs.append(joined(statics[2], (24, 70), accelerator))
    codes = parts.act_codes.transpose(0, 2, 3, 1)
    split = [pack(part, 2).reshape(-1) for part in (codes[..., :24], codes[..., 24:])]
    words = [planes(full), planes(narrow), np.concatenate(split)]
    images = [program.image(each) for program, each in zip(programs, words)]
    memory, bases = np.concatenate(images), np.cumsum([0, *map(len, images)])
    machine = (VerilatorSimulator if verilog else FunctionalSimulator)(accelerator, memory)
    for i, (program, layer, static) in enumerate(zip(programs, (full, narrow, parts), statics)):
        image, count = memory[bases[i] : bases[i + 1]], len(program.instructions)
        if isinstance(machine, VerilatorSimulator):
            machine.run_words(count, base=int(bases[i]))
        else:
            machine.memory = image
            machine.run_words(0, count)
        wanted, found = expected(layer, static), image[program.output_address :]
        assert np.array_equal(found.reshape(wanted.shape), wanted)


def build(network, tmp_path, simulator, **sizes):
    text = (data_folder("targets") / "vta" / "default.toml").read_text()
    for name, value in sizes.items():
        text = text.replace(f"{name} = {64 if name == 'DK' else 8}", f"{name} = {value}")
    path = tmp_path / "vta.toml"
    path.write_text(text)
    mod, x = module_of(network)
    return be.build(mod, target=path, simulator=simulator), be.build(mod, threads=1), x


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("sizes", [(32, 8, 4), (128, 8, 8), (256, 1, 2)])
def test_networks(sizes, network, tmp_path, same):
    """Concatenation, upsampling, tensors in turns and planes side by side in one program."""
    lib, cpu, x = build(network, tmp_path, "functional", **dict(zip(("DK", "DM", "DN"), sizes)))
    for found, right in zip(outputs_of(lib, x), outputs_of(cpu, x), strict=True):
        assert same(found, right) and len(np.unique(right)) > 8
    assert lib.report().programs == 1


@needs_verilator
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("network", [Joined, Narrow])
def test_networks_on_verilog(network, tmp_path, same):
    lib, cpu, x = build(network, tmp_path, "verilog", DK=128, DM=4, DN=4)
    for found, right in zip(outputs_of(lib, x), outputs_of(cpu, x), strict=True):
        assert same(found, right)
