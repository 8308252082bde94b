"""A device against a model of its registers; tests/vta/test_axi.py has it against the Verilog."""

from dataclasses import replace

import numpy as np
import pytest

import tvm_bitenc as be
from tvm_bitenc.accelerator import load_accelerator
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.vta.compile_layer import compile_conv
from tvm_bitenc.vta.driver import Device
from tvm_bitenc.vta.functional import AcceleratorError, FunctionalSimulator
from tvm_bitenc.vta.registers import (
    COUNTERS,
    IDENTIFICATION,
    REGISTERS,
    VERSION,
    instruction_set,
    sizes,
)
from tvm_bitenc.vta.runtime import running_on
from tvm_bitenc.vta.verilator import ERRORS

ACCELERATOR = load_accelerator()
FIRST = 3 << 32  # Where the model's memory lies, in bytes.


class ModelMemory:
    """Words that arrive only where the driver says so, as behind a cache."""

    def __init__(self, words: int):
        self.address, self.words = FIRST, np.zeros(words, np.uint64)
        self.device = self.words.copy()

    def to_device(self):
        self.device[:] = self.words

    def to_host(self):
        self.words[:] = self.device


class Model:
    """Registers of an accelerator that runs on the functional simulator: a `Board`."""

    def __init__(self, accelerator=ACCELERATOR, hangs=False, **other):
        self.accelerator, self.hangs, self.starts, self.resets = accelerator, hangs, 0, 0
        self.values = dict.fromkeys(REGISTERS, 0)
        self.values.update(
            identification=IDENTIFICATION, version=VERSION, instruction_set=instruction_set()
        )
        self.values |= {name.lower(): size for name, size in sizes(accelerator).items()} | other
        self.names = {register.offset: name for name, register in REGISTERS.items()}

    def read(self, offset: int) -> int:
        return self.values[self.names[offset]]

    def write(self, offset: int, value: int):
        name = self.names[offset]
        if name == "control":
            self.resets += value >> 1 & 1
            if value & 1:
                self.run()
        elif name == "status":
            assert value == 2  # Clears done.
            self.values["status"] = 0
        else:
            self.values[name] = value

    def run(self):
        self.starts += 1
        values, shared = self.values, self.shared
        first = (values["base_high"] << 32 | values["base_low"]) - FIRST
        memory = shared.device[first // 8 :][: values["memory_words"]]
        status, error = REGISTERS["status"], 0
        try:
            FunctionalSimulator(self.accelerator, memory).run_words(0, values["instructions"])
        except AcceleratorError:
            error = 1
        values |= {name: 10 * (i + 1) for i, name in enumerate(COUNTERS)}
        done = 0 if self.hangs else 1 << status.field("done").low
        values["status"] = done | error << status.field("error").low

    def memory(self, words: int) -> ModelMemory:
        self.shared = ModelMemory(words)
        return self.shared

    def wait(self, seconds: float):
        pass


@pytest.fixture
def program(random_layer, conv_layer, planes):
    """(image, instructions, image after the run)."""
    encodings = Encoding.signed(2), Encoding.unsigned(2)
    layer = random_layer(0, *encodings, channels=3, out_channels=9, padding=1)
    compiled = compile_conv(conv_layer(layer, 2), ACCELERATOR)
    image, count = compiled.image(planes(layer)), len(compiled.instructions)
    expected = image.copy()
    FunctionalSimulator(ACCELERATOR, expected).run_words(0, count)
    return image, count, expected


def test_runs_programs_and_reads_counters(program):
    image, count, expected = program
    model = Model()
    device = Device(model, ACCELERATOR)
    assert model.resets == 1
    blocks = []
    for _ in range(2):
        memory = image.copy()
        cycles = device.run_words(memory, count)
        assert np.array_equal(memory, expected)
        assert (cycles.cycles, cycles.steps, cycles.writes) == (10, 50, 70)
        blocks.append(model.shared)
    assert blocks[0] is blocks[1]  # Memory is asked for once.
    assert model.values["status"] == 0


@pytest.mark.parametrize(
    "other, said",
    [
        (dict(identification=0), "identification reads 0x0"),
        (dict(version=2), "version reads 0x2"),
        (dict(instruction_set=7), "instruction_set reads 0x7"),
        (dict(dm=4), "DM is 4, the program's 8"),
        (dict(dk=32), "DK is 32, the program's 64"),
        (dict(out_rows=64), "OUT_ROWS is 64, the program's 4096"),
    ],
)
def test_another_accelerator_is_refused(other, said):
    with pytest.raises(AcceleratorError, match=said):
        Device(Model(**other), ACCELERATOR)


def test_an_error_has_its_cause(program):
    device = Device(Model(), ACCELERATOR)
    with pytest.raises(AcceleratorError, match=ERRORS[1]):
        device.run_words(np.zeros(64, np.uint64), 3)
    image, count, expected = program
    device.run_words(image, count)
    assert np.array_equal(image, expected)


def test_what_hangs_is_reset(program):
    model = Model(hangs=True)
    device = Device(model, ACCELERATOR, timeout=0.05)
    with pytest.raises(AcceleratorError, match=r"isn't done after 0\.05 s"):
        device.run_words(program[0], program[1])
    assert model.resets == 2


def test_memory_that_no_address_reaches_is_refused(program, monkeypatch):
    model = Model()
    device = Device(model, ACCELERATOR)
    for address in (4, 1 << 35):
        memory = ModelMemory(program[0].size)
        memory.address = address
        monkeypatch.setattr(model, "memory", lambda words, memory=memory: memory)
        with pytest.raises(AcceleratorError, match="Use an aligned one, below 32 GiB"):
            device.run_words(program[0], program[1])


def test_a_library_runs_on_a_device(random_layer, layers_module, same):
    layer = random_layer(0, Encoding.symmetric(2), Encoding.unsigned(2), padding=1)
    module = layers_module([layer])
    lib = be.build(module, target="vta")
    model = Model()
    with running_on(Device(model, ACCELERATOR)):
        found = lib(layer.input)
    starts = model.starts
    assert starts >= 1 and same(found, layer.reference()) and lib.report().to_dict()
    lib(layer.input)
    assert model.starts == starts
    other = replace(ACCELERATOR, out_rows=64)
    with (
        running_on(Device(Model(other), other)),
        pytest.raises(RuntimeError, match="its OUT_ROWS is 64"),  # What TVM makes of errors.
    ):
        lib(layer.input)
