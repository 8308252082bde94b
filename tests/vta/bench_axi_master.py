"""Runs inside a simulator, by cocotb: the AXI master between random requests and a model of memory.

tests/vta/test_axi.py starts it.
"""

import itertools
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge, with_timeout
from cocotbext.axi import AxiBus, AxiRam, AxiResp
from cocotbext.axi.axi_channels import AxiARMonitor, AxiAWMonitor

WORDS = 2048


def stalls(seed: int, rate: float):
    """Endless pauses, so many of all cycles."""
    rng = random.Random(seed)
    return (rng.random() < rate for _ in itertools.count())


def channels(ram: AxiRam):
    write, read = ram.write_if, ram.read_if
    return write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel


def runs_of_addresses(rng: random.Random, count: int) -> list[int]:
    """Neighbours and jumps, among them runs over the end of 4 KB."""
    found: list[int] = []
    while len(found) < count:
        first = rng.choice([rng.randrange(WORDS), 512 - rng.randrange(1, 20)])
        found += [(first + i) % WORDS for i in range(rng.choice([1, 2, 5, 16, 17, 40]))]
    return found[:count]


class Machine:
    """The master with memory behind it, and what the accelerator would do in front."""

    def __init__(self, dut, rate: float, seed: int = 0):
        self.dut, self.rate, self.rng = dut, rate, random.Random(seed)
        bus = AxiBus.from_entity(dut)
        self.ram = AxiRam(bus, dut.clk, dut.reset, size=8 * WORDS)
        self.data = [self.rng.getrandbits(64) for _ in range(WORDS)]
        for address, word in enumerate(self.data):
            self.ram.write_qword(8 * address, word)
        self.read_bursts = AxiARMonitor(bus.read.ar, dut.clk, dut.reset)
        self.write_bursts = AxiAWMonitor(bus.write.aw, dut.clk, dut.reset)
        for i, channel in enumerate(channels(self.ram)):
            channel.set_pause_generator(stalls(seed + i, rate))

    async def begin(self):
        dut = self.dut
        for name in ("read_valid", "write_valid", "response_ready", "acknowledge_ready"):
            getattr(dut, name).value = 0
        dut.reset.value = 1
        cocotb.start_soon(Clock(dut.clk, 10, "ns").start())
        await ClockCycles(dut.clk, 4)
        dut.reset.value = 0

    async def _send(self, valid, ready, items):
        """Offer each item until it is taken; `items` set the payload."""
        for set_payload in items:
            while self.rng.random() < self.rate:
                await FallingEdge(self.dut.clk)
            set_payload()
            valid.value = 1
            await RisingEdge(self.dut.clk)
            while not ready.value:
                await RisingEdge(self.dut.clk)
            await FallingEdge(self.dut.clk)
            valid.value = 0

    async def _receive(self, valid, ready, count, take):
        found = []
        while len(found) < count:
            await FallingEdge(self.dut.clk)
            ready.value = self.rng.random() >= self.rate
            await RisingEdge(self.dut.clk)
            if valid.value and ready.value:
                found.append(take())
        await FallingEdge(self.dut.clk)
        ready.value = 0
        return found

    async def read(self, addresses):
        """(word, id, error) of each address; ids count."""
        dut = self.dut

        def request(i, address):
            dut.read_address.value = address
            dut.read_id.value = i % 16

        items = (lambda i=i, a=a: request(i, a) for i, a in enumerate(addresses))
        cocotb.start_soon(self._send(dut.read_valid, dut.read_ready, items))
        return await self._receive(
            dut.response_valid,
            dut.response_ready,
            len(addresses),
            lambda: (
                int(dut.response_data.value),
                int(dut.response_id.value),
                int(dut.response_error.value),
            ),
        )

    async def write(self, pairs):
        """Errors of each (address, word)."""
        dut = self.dut

        def request(address, word):
            dut.write_address.value = address
            dut.write_data.value = word

        items = (lambda a=a, w=w: request(a, w) for a, w in pairs)
        cocotb.start_soon(self._send(dut.write_valid, dut.write_ready, items))
        return await self._receive(
            dut.acknowledge_valid,
            dut.acknowledge_ready,
            len(pairs),
            lambda: int(dut.acknowledge_error.value),
        )


@cocotb.test
@cocotb.parametrize(rate=[0, 0.2, 0.7])
async def words_arrive_in_order(dut, rate):
    machine = Machine(dut, rate)
    await machine.begin()
    count = 400
    # Of two halves of memory, one is read while the other is written.
    reads = [a % (WORDS // 2) for a in runs_of_addresses(machine.rng, count)]
    writes = [
        (WORDS // 2 + a % (WORDS // 2), machine.rng.getrandbits(64))
        for a in runs_of_addresses(machine.rng, count)
    ]
    writing = cocotb.start_soon(machine.write(writes))
    found = await with_timeout(machine.read(reads), 1, "ms")
    assert found == [(machine.data[a], i % 16, 0) for i, a in enumerate(reads)]
    assert await with_timeout(writing, 1, "ms") == [0] * count
    for address, word in dict(writes).items():
        assert machine.ram.read_qword(8 * address) == word


@cocotb.test
async def neighbours_share_a_burst(dut):
    machine = Machine(dut, 0)
    await machine.begin()
    first, count = 500, 100  # 4 KB end behind 12 of them.
    await machine.read(range(first, first + count))
    await machine.write([(a, 0) for a in range(first, first + count)])
    for bursts, field in (machine.read_bursts, "arlen"), (machine.write_bursts, "awlen"):
        beats = [int(getattr(bursts.recv_nowait(), field)) + 1 for _ in range(bursts.count())]
        assert sum(beats) == count and max(beats) == 16 and len(beats) <= 8, beats


@cocotb.test
@cocotb.parametrize(response=[AxiResp.SLVERR, AxiResp.DECERR, AxiResp.EXOKAY])
async def error_responses_become_errors(dut, response):
    machine = Machine(dut, 0.3)
    await machine.begin()
    read, write = machine.ram.read_if.r_channel, machine.ram.write_if.b_channel
    send_word, send_reply, words = read.send, write.send, itertools.count()

    async def answer_word(word):
        word.rresp = response if next(words) == 5 else AxiResp.OKAY
        await send_word(word)

    async def answer_burst(reply):
        reply.bresp = response
        await send_reply(reply)

    read.send, write.send = answer_word, answer_burst
    is_error = int(response != AxiResp.EXOKAY)
    errors = [error for _, _, error in await machine.read(range(20))]
    assert errors == [is_error if i == 5 else 0 for i in range(20)]
    assert await machine.write([(a, a) for a in range(20)]) == [is_error] * 20
