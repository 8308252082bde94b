"""Runs inside a simulator, by cocotb: the accelerator on AXI, driven as a processor drives it.

tests/vta/test_axi.py starts it, and leaves a program in the file PROGRAM.
"""

import itertools
import os
import random

import cocotb
import numpy as np
from bench_axi_master import channels, stalls
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, First, RisingEdge, Timer
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam, AxiResp

from tvm_bitenc.accelerator import load_accelerator
from tvm_bitenc.vta.driver import Device
from tvm_bitenc.vta.functional import AcceleratorError
from tvm_bitenc.vta.registers import IDENTIFICATION, REGISTERS, VERSION, sizes
from tvm_bitenc.vta.verilator import ERRORS

ACCELERATOR = load_accelerator(os.environ["ACCELERATOR"])
BASE = 0x12348  # In bytes; the program's memory lies over the ends of pages.


class SharedMemory:
    """Memory of the model, which a program's words go to and from."""

    def __init__(self, ram: AxiRam, words: int):
        self.ram, self.address, self.words = ram, BASE, np.zeros(words, np.uint64)

    def to_device(self):
        self.ram.write(self.address, self.words.tobytes())

    def to_host(self):
        found = self.ram.read(self.address, self.words.nbytes)
        self.words[:] = np.frombuffer(found, np.uint64)


class Machine:
    """`vta_axi` between models of a processor and of memory: a `Board`."""

    def __init__(self, dut, rate=0.0, seed=0):
        self.dut = dut
        reset = dict(reset=dut.aresetn, reset_active_level=False)
        master = AxiLiteBus.from_prefix(dut, "s_axi")
        self.processor = AxiLiteMaster(master, dut.aclk, **reset)
        self.ram = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.aclk, size=1 << 20, **reset)
        if rate:
            write, read = self.processor.write_if, self.processor.read_if
            sides = [write.aw_channel, write.w_channel, write.b_channel, read.ar_channel]
            for i, channel in enumerate([*channels(self.ram), *sides, read.r_channel]):
                channel.set_pause_generator(stalls(seed + i, rate))

    async def begin(self):
        self.dut.aresetn.value = 0
        cocotb.start_soon(Clock(self.dut.aclk, 10, "ns").start())
        await ClockCycles(self.dut.aclk, 4)
        self.dut.aresetn.value = 1
        await ClockCycles(self.dut.aclk, 2)

    async def get(self, name: str) -> int:
        return await self.processor.read_dword(REGISTERS[name].offset)

    async def set(self, name: str, value: int):
        await self.processor.write_dword(REGISTERS[name].offset, value)

    async def get_field(self, name: str, field: str) -> int:
        return REGISTERS[name].field(field).of(await self.get(name))

    async def start(self, image: np.ndarray, count: int):
        self.ram.write(BASE, image.tobytes())
        for name, value in dict(
            base_low=BASE, base_high=0, instructions=count, memory_words=image.size, control=5
        ).items():
            await self.set(name, value)

    async def ends(self):
        """Wait for the interrupt."""
        if not self.dut.interrupt.value:
            await First(RisingEdge(self.dut.interrupt), Timer(10, "ms"))
        assert self.dut.interrupt.value

    # What the driver asks of a board, from its own thread.
    def read(self, offset: int) -> int:
        return resume(self.processor.read_dword)(offset)

    def write(self, offset: int, value: int):
        resume(self.processor.write_dword)(offset, value)

    def memory(self, words: int) -> SharedMemory:
        return SharedMemory(self.ram, words)

    def wait(self, seconds: float):
        resume(self._wait)()

    async def _wait(self):
        if not self.dut.interrupt.value:
            await First(RisingEdge(self.dut.interrupt), Timer(1, "us"))


def program():
    """(image, instructions, image after the run) of a compiled layer."""
    with np.load(os.environ["PROGRAM"]) as file:
        return file["image"], int(file["count"]), file["expected"]


@cocotb.test
@cocotb.parametrize(rate=[0.0, 0.5])
async def registers_hold_what_the_map_says(dut, rate):
    machine = Machine(dut, rate)
    await machine.begin()
    assert await machine.get("identification") == IDENTIFICATION
    assert await machine.get("version") == VERSION
    for name, size in sizes(ACCELERATOR).items():
        assert await machine.get(name.lower()) == size, name
    rng = random.Random(0)
    writable = dict(base_low=~7, base_high=7, instructions=-1, memory_words=-1)
    written = {name: rng.getrandbits(32) for name in writable}
    for name, value in written.items():
        await machine.set(name, value)
    # Bytes are written alone, and what isn't a register or can't be written stays as it is.
    await machine.processor.write_byte(REGISTERS["instructions"].offset + 1, 0xA5)
    written["instructions"] = written["instructions"] & 0xFFFF00FF | 0xA500
    for name in ("identification", "dm", "cycles"):
        before = await machine.get(name)
        await machine.set(name, 0x5A5A5A5A)
        assert await machine.get(name) == before
    await machine.processor.write_dword(0xFFC, 1)
    assert await machine.processor.read_dword(0xFFC) == 0
    for name, bits in writable.items():
        assert await machine.get(name) == written[name] & bits & 0xFFFFFFFF
    assert await machine.get("status") == 0


@cocotb.test
@cocotb.parametrize(rate=[0.0, 0.4])
async def the_driver_runs_a_program(dut, rate):
    machine = Machine(dut, rate, seed=1)
    await machine.begin()
    device = await bridge(Device)(machine, ACCELERATOR)
    image, count, expected = program()
    for _ in range(2):
        memory = image.copy()
        cycles = await bridge(device.run_words)(memory, count)
        assert np.array_equal(memory, expected)
        assert cycles.reads > 4 * count and cycles.steps and cycles.cycles > cycles.steps
        assert cycles.writes == await machine.get("write_words")


@cocotb.test
async def the_driver_says_why_a_program_ends(dut):
    machine = Machine(dut)
    await machine.begin()
    device = await bridge(Device)(machine, ACCELERATOR)
    image, count, _ = program()
    for memory, cause in (np.zeros_like(image), ERRORS[1]), (image[:-1].copy(), ERRORS[2]):
        try:
            await bridge(device.run_words)(memory, count)
            raise AssertionError("it ran")
        except AcceleratorError as error:
            assert error.cause == cause


@cocotb.test
async def a_start_while_busy_changes_nothing(dut):
    machine = Machine(dut)
    await machine.begin()
    image, count, expected = program()
    await machine.start(image, count)
    assert await machine.get_field("status", "busy")
    for name in ("base_low", "instructions", "memory_words"):
        await machine.set(name, 0)
    await machine.set("control", 5)
    assert not await machine.get_field("status", "done")
    await machine.ends()
    assert machine.ram.read(BASE, image.nbytes) == expected.tobytes()


@cocotb.test
async def the_interrupt_follows_done(dut):
    machine = Machine(dut)
    await machine.begin()
    image, count, _ = program()
    await machine.start(image, count)
    await machine.ends()
    assert await machine.get("status") == 2
    await machine.set("control", 0)
    assert not dut.interrupt.value
    await machine.set("control", 4)
    assert dut.interrupt.value
    await machine.set("status", 2)
    assert not dut.interrupt.value and await machine.get("status") == 0


@cocotb.test
@cocotb.parametrize(response=[AxiResp.SLVERR, AxiResp.DECERR], side=["read", "write"], place=[0, 2])
async def error_responses_set_the_flag(dut, response, side, place):
    machine = Machine(dut, 0.2)
    await machine.begin()
    image, count, expected = program()
    reading = side == "read"
    interface = machine.ram.read_if if reading else machine.ram.write_if
    channel = interface.r_channel if reading else interface.b_channel
    name, send, answers = "rresp" if reading else "bresp", channel.send, itertools.count()

    async def answer(word):
        setattr(word, name, response if next(answers) == place else AxiResp.OKAY)
        await send(word)

    channel.send = answer
    await machine.start(image, count)
    await machine.ends()
    assert await machine.get_field("status", "error") == 7
    # The next program isn't harmed.
    channel.send = send
    await machine.set("status", 2)
    await machine.start(image, count)
    await machine.ends()
    assert await machine.get_field("status", "error") == 0
    assert machine.ram.read(BASE, image.nbytes) == expected.tobytes()


@cocotb.test
async def a_reset_in_flight_leaves_nothing_behind(dut):
    machine = Machine(dut, 0.3)
    await machine.begin()
    image, count, expected = program()
    rng = random.Random(3)
    for _ in range(8):
        await machine.start(image, count)
        await ClockCycles(dut.aclk, rng.randrange(1, 600))
        await machine.set("control", 2)
        assert not await machine.get_field("status", "done")
        machine.ram.write(BASE, bytes(image.nbytes))
        # What was written before the reset may still be on its way.
        while await machine.get_field("status", "busy"):
            pass
        await ClockCycles(dut.aclk, 300)
        await machine.start(image, count)
        await machine.ends()
        assert await machine.get("status") == 2
        assert machine.ram.read(BASE, image.nbytes) == expected.tobytes()
        await machine.set("status", 2)


@cocotb.test
async def a_reset_of_the_bus_in_flight_is_forgotten(dut):
    machine = Machine(dut, 0.3)
    await machine.begin()
    image, count, expected = program()
    for cycles in (40, 333):
        await machine.start(image, count)
        await ClockCycles(dut.aclk, cycles)
        dut.aresetn.value = 0
        await ClockCycles(dut.aclk, 4)
        dut.aresetn.value = 1
        await ClockCycles(dut.aclk, 4200)  # Answers to come are given up.
        assert await machine.get("status") == 0 and await machine.get("instructions") == 0
        await machine.start(image, count)
        await machine.ends()
        assert await machine.get("status") == 2
        assert machine.ram.read(BASE, image.nbytes) == expected.tobytes()
