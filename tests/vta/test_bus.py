"""The accelerator's bus: latencies, stalls, resets, faults of the memory, program on program."""

from dataclasses import replace

import numpy as np
import pytest

from tests.vta.cases import needs_verilator
from tvm_bitenc.accelerator import load_accelerator
from tvm_bitenc.data import data_folder
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import TargetError
from tvm_bitenc.vta import isa
from tvm_bitenc.vta.compile_layer import compile_conv, output_of
from tvm_bitenc.vta.counters import predicted
from tvm_bitenc.vta.functional import AcceleratorError, FunctionalSimulator
from tvm_bitenc.vta.verilator import ERRORS, Bus, VerilatorSimulator

pytestmark = needs_verilator

ACCELERATOR = load_accelerator()
LATENCIES = 1, 16, 100, 200
STALLS = (0, 0, 0, 0), (20, 20, 20, 20), (90, 0, 0, 0), (0, 90, 0, 0), (0, 0, 90, 0), (0, 0, 0, 90)
READ_FAULTS = "drop response", "repeat response", "swap responses", "fail response", "wrong id"
WRITE_FAULTS = "drop acknowledge", "fail acknowledge"
# All that a program of `Case` takes where one in five words waits, and one wait for a lost answer.
MOST_CYCLES = 40_000


class Case:
    """A small layer of several bands, its memory before it runs, and the output it must have."""

    def __init__(self, layer, static, planes, expected, accelerator=ACCELERATOR):
        self.static, self.expected = static, expected
        self.program = compile_conv(static, accelerator)
        self.count = len(self.program.instructions)
        self.image = self.program.image(planes)

    def is_right(self, memory: np.ndarray) -> bool:
        words = memory[self.program.output_address : self.program.memory_words]
        return np.array_equal(output_of(self.static, self.program, words), self.expected)


@pytest.fixture(scope="module")
def case(random_layer, conv_layer, planes, expected):
    def case(out_bits=2, accelerator=ACCELERATOR, **options):
        options = dict(channels=70, out_channels=24, size=(9, 7), padding=1) | options
        layer = random_layer(0, Encoding.signed(2), Encoding.unsigned(1), **options)
        static = conv_layer(layer, out_bits)
        return Case(layer, static, planes(layer), expected(layer, static), accelerator)

    return case


def _error_of(machine: VerilatorSimulator, case: Case, max_cycles: int = MOST_CYCLES) -> str:
    try:
        machine.run_words(case.count, max_cycles)
    except AcceleratorError as error:
        return error.cause
    return ""


@pytest.mark.parametrize("stalls", STALLS, ids=str)
@pytest.mark.parametrize("latency", LATENCIES)
def test_answers_are_right_at_any_latency_and_under_stalls(latency, stalls, case):
    accelerator = replace(ACCELERATOR, latency=latency)
    for out_bits in (0, 2):
        each = case(out_bits)
        words = predicted(each.program, accelerator)
        for seed in range(2):
            memory = each.image.copy()
            machine = VerilatorSimulator(accelerator, memory, Bus(stalls, seed))
            run = machine.run_words(each.count, 10 * MOST_CYCLES)
            assert each.is_right(memory)
            assert (run.reads, run.writes) == (words.reads, words.writes)


@pytest.mark.slow  # Verilator builds other machines.
@pytest.mark.parametrize(
    "sizes",
    [
        dict(instruction_queue=1, token_queue=2, outstanding=1),
        dict(instruction_queue=5, token_queue=3, outstanding=7),
    ],
    ids=str,
)
def test_queues_of_any_depth(sizes, case):
    """A program that isn't a deadlock for the functional simulator isn't one for the Verilog."""
    accelerator = replace(ACCELERATOR, latency=16, **sizes)
    for out_bits in (0, 2):
        each = case(out_bits, accelerator)
        memory, reference = each.image.copy(), each.image.copy()
        FunctionalSimulator(accelerator, reference).run_words(0, each.count)
        for stalls in STALLS[:2]:
            VerilatorSimulator(accelerator, memory, Bus(stalls)).run_words(each.count)
            assert each.is_right(memory) and np.array_equal(memory, reference)


@pytest.mark.parametrize("name, least", [("instruction_queue", 1), ("token_queue", 2)])
def test_queues_that_no_program_can_use_are_refused(name, least, tmp_path):
    assert replace(ACCELERATOR, **{name: least})
    key = dict(instruction_queue="instructions", token_queue="tokens")[name]
    text = (data_folder("targets") / "vta" / "default.toml").read_text()
    path = tmp_path / "small.toml"
    path.write_text(text.replace(f"{key} = 8", f"{key} = {least - 1}"))
    with pytest.raises(TargetError, match=f"{name} = {least - 1}: .* Give an integer from {least}"):
        load_accelerator(path)


def test_programs_run_one_after_another_at_their_base_address(case):
    first, second = case(2), case(0)
    base = first.image.size + 5
    memory = np.zeros(base + second.image.size, np.uint64)
    memory[: first.image.size] = first.image
    memory[base:] = second.image
    machine = VerilatorSimulator(ACCELERATOR, memory)
    cycles = [machine.run_words(first.count).cycles for _ in range(2)]
    assert first.is_right(memory) and cycles[0] == cycles[1]
    machine.run_words(second.count, base=base)
    assert second.is_right(memory[base:]) and first.is_right(memory)
    with pytest.raises(AcceleratorError, match=ERRORS[2]):  # The last word is missing.
        VerilatorSimulator(ACCELERATOR, memory[:-1]).run_words(second.count, base=base)


def _copying_program(first: int, second: int) -> list[isa.Instruction]:
    """Word 0 of the act buffer to memory by a pool of one tap, and from there again."""
    pool = isa.Pool(
        pop_prev=1, push_next=1, passes=1, taps=1, pixels=1, out_width=1, in_height=1,
        in_width=1, stride_y=1, stride_x=1, row_pixels=1, bits=1,
    )  # fmt: skip
    one = dict(rows=1, pixels=1, words=1)
    taps, passes = 99, 100  # A line of zeros does for one tap.
    return [
        isa.Load(buffer=3, dram=taps, **one),
        isa.Load(buffer=4, dram=passes, **one),
        isa.Load(buffer=0, dram=first, push_next=1, **one),
        pool,
        isa.Store(pop_prev=1, push_prev=1, dram=second, rows=1, words=1),
        isa.Wait(pop_next=1, push_prev=1),
        isa.Load(pop_next=1, buffer=0, dram=second, push_next=1, **one),
        pool,
        isa.Store(pop_prev=1, push_prev=1, dram=second + 1, rows=1, words=1),
        isa.Finish(pop_next=1),
    ]


@pytest.mark.parametrize("latency", [1, 100])
def test_a_load_that_waits_for_a_store_reads_what_it_wrote(latency):
    """Memory writes when it acknowledges, and reads when it is asked."""
    program = _copying_program(101, 102)
    for seed in range(10):
        memory = np.zeros(128, np.uint64)
        encoded = np.concatenate([isa.encode(x) for x in program])
        memory[: encoded.size], memory[101] = encoded, 0xA5
        line = dict(act=0, weight=0, shift=0, ones=0, **isa.ONE_WORD)
        memory[100] = isa.encode_line(line, isa.PASS_FIELDS)
        accelerator = replace(ACCELERATOR, latency=latency)
        bus = Bus((0, 0, 90, 90), seed)
        VerilatorSimulator(accelerator, memory, bus).run_words(len(program))
        assert memory[103] == 0xA5


@pytest.mark.parametrize("latency", LATENCIES)
def test_a_program_behind_a_reset_is_right(latency, case, runs=12):
    """The memory goes on with what it was asked before, and the next program waits for it."""
    each, rng = case(2), np.random.default_rng(latency)
    memory = each.image.copy()
    bus = Bus((10, 10, 10, 10), latency)
    machine = VerilatorSimulator(replace(ACCELERATOR, latency=latency), memory, bus)
    length = machine.run_words(each.count).cycles
    for _ in range(runs):
        memory[each.program.output_address :] = 0
        for _ in range(rng.integers(1, 4)):  # Also before the program has begun.
            most = int(rng.choice([rng.integers(1, 8), rng.integers(1, length)]))
            assert _error_of(machine, each, most) in ("", ERRORS[-1])
            machine.reset()
        assert _error_of(machine, each) == "" and each.is_right(memory)


@pytest.mark.slow
def test_a_hundred_programs_behind_resets_are_right(case):
    for latency in LATENCIES:
        test_a_program_behind_a_reset_is_right(latency, case, runs=100)


def _survives(fault: str, at: int, latency: int, case: Case) -> str:
    """Error of a run with a fault; a right answer or an error, and soon a machine as before."""
    memory, bus = case.image.copy(), Bus((5, 5, 5, 5), at, fault, at)
    machine = VerilatorSimulator(replace(ACCELERATOR, latency=latency), memory, bus)
    cause = _error_of(machine, case)
    assert cause or case.is_right(memory)
    # What is left of the fault may end the next program too, but no other one.
    assert _error_of(machine, case) in ("", ERRORS[7], ERRORS[8])
    assert _error_of(machine, case) == "" and case.is_right(memory)
    return cause


@pytest.mark.parametrize("fault", [*READ_FAULTS, *WRITE_FAULTS])
def test_faults_of_the_memory_raise_the_flag(fault, case, runs=6):
    each, rng = case(2), np.random.default_rng(0)
    words = predicted(each.program, ACCELERATOR)
    most, causes = words.reads if fault in READ_FAULTS else words.writes, set()
    for place in [0, most - 1, *map(int, rng.integers(0, most, runs))]:
        causes.add(_survives(fault, place, int(rng.choice(LATENCIES)), each))
    allowed = {ERRORS[8]} if fault == "drop acknowledge" else {ERRORS[7], ERRORS[8]}
    # A word that comes twice at the end harms nothing, and the first has none to change places.
    harmless = {""} if fault in ("repeat response", "swap responses") else set()
    assert causes - harmless and causes <= allowed | harmless


@pytest.mark.parametrize("channel", range(4), ids=["read", "response", "write", "acknowledge"])
def test_a_channel_that_stands_still_is_a_timeout(channel, case):
    """Of the next program too, for the memory never comes back; a reset changes nothing."""
    each, stalls = case(2), [0, 0, 0, 0]
    stalls[channel] = 100
    machine = VerilatorSimulator(ACCELERATOR, each.image.copy(), Bus(tuple(stalls)))
    assert _error_of(machine, each) == ERRORS[8]
    machine.reset()
    assert _error_of(machine, each) == ERRORS[8]


@pytest.mark.slow
@pytest.mark.parametrize("fault", [*READ_FAULTS, *WRITE_FAULTS])
def test_many_faults_of_the_memory_raise_the_flag(fault, case):
    test_faults_of_the_memory_raise_the_flag(fault, case, runs=150)
