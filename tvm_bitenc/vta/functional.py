"""Functional simulator: what a program does, in numpy, without cycles.

Load, compute and store run their instructions in order, each when its tokens are there, as on the
hardware. What the hardware answers with its error flag raises an `AcceleratorError` here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..accelerator import BUFFERS, Accelerator
from ..encoding import WORD_BITS
from ..errors import BitencError
from . import floats, isa

Queue = deque[tuple[int, isa.Instruction]]  # With their positions in the program.
MODULES = ("load", "compute", "store")
FACTOR_BITS = 18  # Of the signed factor of the ones, and of the ones that it multiplies.
ONES_BITS = 24
POSITION = (1 << 15) - 1  # Positions in the input are computed modulo its end.
TAKES = {
    ("load", "pop_next"): "compute to load",
    ("compute", "pop_prev"): "load to compute",
    ("compute", "pop_next"): "store to compute",
    ("store", "pop_prev"): "compute to store",
}
GIVES = {
    ("load", "push_next"): "load to compute",
    ("compute", "push_prev"): "compute to load",
    ("compute", "push_next"): "compute to store",
    ("store", "push_prev"): "store to compute",
}


class AcceleratorError(BitencError):
    """A program that the accelerator answers with its error flag."""


class FunctionalSimulator:
    """One accelerator, its buffers and its memory.

    Parameters
    ----------
    accelerator : Accelerator
    memory : ndarray of uint64
        Read and written in place.
    """

    def __init__(self, accelerator: Accelerator, memory: np.ndarray):
        self.accelerator, self.memory = accelerator, memory
        rows = accelerator.rows
        # A row of a bank is counted in units: words of the memory, or halves that are words of DK.
        self.row_units = accelerator.row_words * accelerator.row_steps
        self.step_units = accelerator.row_words
        unit = np.uint32 if accelerator.row_steps > 1 else np.uint64
        self.act = np.zeros((rows("act"), accelerator.pixels, self.row_units), unit)
        self.weight = np.zeros((rows("weight"), accelerator.channels, self.row_units), unit)
        columns = accelerator.channels + accelerator.channels % 2  # They fill whole words.
        self.param = np.zeros((rows("param"), columns), np.int32)
        self.tap = np.zeros(rows("tap"), np.uint64)
        self.passes = np.zeros(rows("pass"), np.uint64)
        self.residual = np.zeros(rows("residual"), np.uint64)
        self.out = np.zeros(rows("out"), np.uint64)
        self.setup = isa.Setup(copies=1)
        self.tokens = dict.fromkeys([*TAKES.values()], 0)

    def run_words(self, first: int, count: int, order: Sequence[str] = MODULES) -> None:
        """Run `count` instructions that lie in memory from word `first` on."""
        end = first + isa.INSTRUCTION_WORDS * count
        if not 0 <= first <= end <= self.memory.size:
            raise AcceleratorError("program", "lies outside the memory", "Place it inside")
        lines = self.memory[first:end].reshape(count, -1)
        try:
            program = [isa.decode(line) for line in lines]
        except isa.InstructionError as error:
            raise AcceleratorError(error.where, error.cause, error.cure) from None
        self.run(program, order)

    def run(self, program: Sequence[isa.Instruction], order: Sequence[str] = MODULES) -> None:
        """Run instructions until `Finish`.

        Parameters
        ----------
        program : sequence of Instruction
        order : sequence of str
            Which module goes first where several could; a right program doesn't mind.

        Raises
        ------
        AcceleratorError
            For a deadlock, an address out of range, wrong tokens or sizes.
        """
        queues: dict[str, Queue] = {module: deque() for module in MODULES}
        fetched: Queue = deque(enumerate(program))
        while True:
            self._dispatch(fetched, queues)
            ready = [m for m in order if queues[m] and not self._missing(queues[m][0][1])]
            if not ready:
                raise self._deadlock(queues, fetched)
            index, instruction = queues[ready[0]].popleft()
            self._step(index, instruction)
            if isinstance(instruction, isa.Finish):
                break
        self._check_end(queues, fetched)

    def _dispatch(self, fetched: Queue, queues: dict[str, Queue]) -> None:
        """Fill the queues in the order of the program, until the next one's queue is full."""
        while fetched:
            queue = queues[fetched[0][1].module]
            if len(queue) == self.accelerator.instruction_queue:
                return
            queue.append(fetched.popleft())

    def _step(self, index: int, instruction: isa.Instruction) -> None:
        where = f"instruction {index} ({instruction.name})"
        for name, queue in TAKES.items():
            if name[0] == instruction.module and getattr(instruction, name[1]):
                self.tokens[queue] -= 1
        self._check_tokens(where, instruction)
        match instruction:
            case isa.Load():
                self._load(where, instruction)
            case isa.Pool():
                self._pool(where, instruction)
            case isa.Conv():
                self._conv(where, instruction)
            case isa.Setup():
                self._set_up(where, instruction)
            case isa.Store():
                self._store(where, instruction)
        for name, queue in GIVES.items():
            if name[0] == instruction.module and getattr(instruction, name[1]):
                self.tokens[queue] += 1
                if self.tokens[queue] > self.accelerator.token_queue:
                    raise AcceleratorError(
                        where, f"more than {self.accelerator.token_queue} tokens {queue}", "Pop"
                    )

    def _missing(self, instruction: isa.Instruction) -> list[str]:
        """Token queues that an instruction waits for."""
        return [
            queue
            for (module, flag), queue in TAKES.items()
            if module == instruction.module
            and getattr(instruction, flag)
            and not self.tokens[queue]
        ]

    def _check_tokens(self, where: str, x: isa.Instruction) -> None:
        known = {flag for module, flag in [*TAKES, *GIVES] if module == x.module}
        for flag in ("pop_prev", "pop_next", "push_prev", "push_next"):
            if getattr(x, flag) and flag not in known:
                raise AcceleratorError(where, f"{x.module} has no module for {flag}", "Clear it")

    def _deadlock(self, queues: dict[str, Queue], fetched: Queue) -> AcceleratorError:
        waiting = [
            f"{module} at instruction {queue[0][0]} ({queue[0][1].name}) waits for a token "
            + " and ".join(self._missing(queue[0][1]))
            for module, queue in queues.items()
            if queue
        ]
        if fetched:
            index, x = fetched[0]
            waiting.append(f"instruction {index} ({x.name}) waits, for {x.module}'s queue is full")
        cause = "deadlock: " + "; ".join(waiting) if waiting else "it ends without finish"
        return AcceleratorError("program", cause, "Push a token for every one that is popped")

    def _check_end(self, queues: dict[str, Queue], fetched: Queue) -> None:
        left = [f"{len(queue)} of {module}" for module, queue in queues.items() if queue]
        left += [f"{len(fetched)} to be fetched"] if fetched else []
        tokens = [f"{n} tokens {queue}" for queue, n in self.tokens.items() if n]
        if left or tokens:
            cause = f"finish leaves {', '.join([*left, *tokens])}"
            raise AcceleratorError("program", cause, "Let finish wait for all modules")

    def _load(self, where: str, x: isa.Load) -> None:
        if x.buffer >= len(BUFFERS) or BUFFERS[x.buffer] == "out":
            raise AcceleratorError(where, f"can't load into buffer {x.buffer}", "Use another")
        if not x.rows * x.pixels * x.words:
            return
        name, buffer = BUFFERS[x.buffer], self._buffer(x.buffer)
        first = x.sram * (buffer.size // self.accelerator.rows(name)) if name != "act" else 0
        _check_range(where, name, first + x.rows * x.pixels * x.words - 1, buffer.size)
        row, pixel, word = np.ogrid[: x.rows, : x.pixels, : x.words]
        address = x.dram + row * x.row_words + pixel * x.pixel_words + word
        _check_range(where, "memory", address.max(), self.memory.size)
        values = self.memory[address]
        if name == "act":
            # A row's first word clears the others, which a pixel's last row may lack.
            row_words = self.accelerator.row_words
            values = np.pad(values, [(0, 0), (0, 0), (0, -x.words % row_words)])
            values = values.reshape(x.rows, x.pixels, -1, row_words)
            index = x.first_pixel + row * x.row_pixels + pixel * (1 + x.pixel_step)
            line = x.sram + index // self.accelerator.pixels
            line = line + np.arange(values.shape[2]) * x.word_rows
            _check_range(where, "act", line.max(), self.accelerator.act_rows)
            bank = np.broadcast_to(index % self.accelerator.pixels, line.shape)
            self.act.view(np.uint64)[line, bank] = values
            return
        buffer[first : first + values.size] = values.reshape(-1)

    def _buffer(self, index: int) -> np.ndarray:
        """Words of a buffer, flat."""
        name = BUFFERS[index]
        target = self.passes if name == "pass" else getattr(self, name)
        return target.reshape(-1).view(np.uint64)

    def _store(self, where: str, x: isa.Store) -> None:
        if not x.rows * x.words:
            return
        last = x.sram + x.rows * x.words
        _check_range(where, "out", last - 1, self.accelerator.out_rows)
        row, word = np.ogrid[: x.rows, : x.words]
        address = x.dram + row * x.row_words + word
        _check_range(where, "memory", address.max(), self.memory.size)
        self.memory[address] = self.out[x.sram : last].reshape(x.rows, x.words)

    def _conv(self, where: str, x: isa.Conv) -> None:
        self._check_window(where, x)
        if x.column_high > x.out_width:
            raise AcceleratorError(where, "column_high is beyond out_width", "Use a column")
        if x.row_low >= x.row_high or x.column_low >= x.column_high:
            raise AcceleratorError(where, "border classes without one between", "Raise row_high")
        if self.setup.is_float and x.thresholds < floats.CONSTANTS:
            raise AcceleratorError(where, "no rows of float constants", "Raise thresholds")
        if x.residual_bits and not x.bits:
            raise AcceleratorError(where, "a residual needs thresholds", "Set bits")
        y, column = np.divmod(np.arange(x.pixels), x.out_width)
        y += x.first_row
        differing, ones = self._count(where, x)
        row_class = np.minimum(y, x.row_low) + np.maximum(y - x.row_high + 1, 0)
        column_class = np.minimum(column, x.column_low)
        column_class += np.maximum(column - x.column_high + 1, 0)
        classes = x.column_low + 1 + x.out_width - x.column_high
        border = x.param + 2 + row_class * classes + column_class
        last = x.param + x.thresholds + self.setup.copies * _threshold_rows(x) - 1
        last = last if x.bits or self.setup.is_float else 0
        _check_range(where, "param", max(last, border.max()), self.accelerator.param_rows)
        factor = _signed(self.param[x.param, : self.accelerator.channels], FACTOR_BITS)
        ones = ones & (1 << ONES_BITS) - 1
        acc = self.param[border][:, : len(factor)] - 2 * differing + factor * ones[:, None]
        acc = acc.astype(np.int32)
        if self.setup.is_float:
            acc = self._floats(where, x, acc)
            if not x.bits:
                return
        if not x.bits:
            self._write_accumulators(x, acc)
            return
        for copy, place in enumerate(self._places(x)):
            self._write_codes(place, self._search(where, x, acc, copy))

    def _set_up(self, where: str, x: isa.Setup) -> None:
        parts = WORD_BITS // self.accelerator.channels
        if not 0 < x.copies <= isa.MAX_COPIES or x.copy_parts > parts:
            cause = f"{x.copies} copies, {x.copy_parts} parts of a word apart"
            raise AcceleratorError(where, cause, f"Use 1 to {isa.MAX_COPIES}, and one word at most")
        if x.is_float and (not self.accelerator.float_units or x.copies != 1 or x.pixel_rows):
            cause = f"{self.accelerator.float_units} float units, {x.copies} copies"
            raise AcceleratorError(where, cause, "Use some, and 1 copy")
        if x.plane_parts >= parts or (x.pixel_rows and x.copies > 1):
            cause = f"planes side by side, {x.plane_parts} parts of a word apart"
            raise AcceleratorError(where, cause, "Use one copy, and less than a word")
        self.setup = x

    def _places(self, x: isa.Conv) -> list[isa.Conv]:
        """Where each copy's codes go: instructions with other `out` and `sub_word`."""
        parts = WORD_BITS // self.accelerator.channels
        setup = self.setup
        words = [divmod(x.sub_word + c * setup.copy_parts, parts) for c in range(setup.copies)]
        return [replace(x, out=x.out + w * setup.copy_rows, sub_word=part) for w, part in words]

    def _floats(self, where: str, x: isa.Conv, acc: np.ndarray) -> np.ndarray:
        """Numbers of accumulators, as integers of the same order; writes them if asked for."""
        setup, width = self.setup, self.accelerator.channels // 2
        first = x.param + x.thresholds - floats.CONSTANTS
        pixel, word = np.ogrid[: x.pixels, :width]
        line = pixel * setup.pixel_words + x.sub_word * width + word
        residual = None
        if setup.adds_residual:
            rows = x.residual + line
            _check_range(where, "residual", int(rows.max()), self.accelerator.residual_rows)
            residual = self.residual[rows].view(np.float32)
        found = floats.computed(self.param[first : first + floats.CONSTANTS], acc, residual)
        if setup.writes_floats:
            rows = x.out + setup.float_rows + line
            _check_range(where, "out", int(rows.max()), self.accelerator.out_rows)
            self.out[rows] = found.view(np.uint64)
        return floats.keys(found)

    def _pool(self, where: str, x: isa.Pool) -> None:
        self._check_window(where, x)
        if x.passes != x.bits:
            raise AcceleratorError(where, f"{x.passes} passes for {x.bits} bits", "Give each one")
        code = np.zeros((), np.int64)
        for units, each in self._planes(where, x):  # From the highest plane down.
            code = 2 * code + self._part(x, units, each)
        self._write_codes(x, code.max(axis=0).T)

    def _check_window(self, where: str, x: isa.Conv) -> None:
        wrong = [
            name
            for name in ("passes", "taps", "pixels", "out_width", "stride_y", "stride_x")
            if not getattr(x, name)
        ]
        if wrong:
            raise AcceleratorError(where, f"{', '.join(wrong)} is 0", "Use at least 1")
        if (x.row_pixels - x.out_width) % self.accelerator.pixels:
            cause = f"row_pixels {x.row_pixels} isn't out_width {x.out_width} modulo DN"
            raise AcceleratorError(where, cause, "Leave a gap between rows")
        if x.bits > 8 or x.residual_bits > 8:
            cause = f"{x.bits} bits, {x.residual_bits} of the residual"
            raise AcceleratorError(where, cause, "Use 0 to 8")
        if x.sub_word >= WORD_BITS // self.accelerator.channels:
            raise AcceleratorError(where, f"sub_word {x.sub_word}", "Use one inside the word")
        if self.setup.copies > 1 and (isinstance(x, isa.Pool) or x.residual_bits or not x.bits):
            raise AcceleratorError(where, "copies of what isn't codes alone", "Set 1 copy before")
        if x.narrow and (isinstance(x, isa.Pool) or x.bits or self.accelerator.channels < 4):
            raise AcceleratorError(where, "no accumulators to write narrow", "Clear narrow")
        if self.setup.is_float:
            is_float = not (isinstance(x, isa.Pool) or x.residual_bits or x.narrow)
            if not is_float or not (x.bits or self.setup.writes_floats):
                raise AcceleratorError(where, "no float arithmetic", "Clear is_float before")
        if self.setup.pixel_rows:
            self._check_side_by_side(where, x)
        else:
            words = self.accelerator.accumulator_words(16 if x.narrow else 32)
            rows = x.pixels * (x.bits or (0 if self.setup.is_float else words))
            for place in self._places(x):
                _check_range(where, "out", place.out + rows - 1, self.accelerator.out_rows)
        last_tap, last_pass = self.setup.first_tap + x.taps, self.setup.first_pass + x.passes
        _check_range(where, "tap table", last_tap - 1, self.accelerator.tap_rows)
        _check_range(where, "pass table", last_pass - 1, self.accelerator.pass_rows)

    def _check_side_by_side(self, where: str, x: isa.Conv) -> None:
        if not x.bits or x.out_part >= WORD_BITS // self.accelerator.channels:
            cause = f"planes side by side of {x.bits} bits, from part {x.out_part} on"
            raise AcceleratorError(where, cause, "End in codes, inside of a word")
        rows = [row for row, _ in self._plane_places(x)]
        _check_range(where, "out", -min(rows), 1)
        last = rows[0] + (x.pixels - 1) * self.setup.pixel_rows
        _check_range(where, "out", last, self.accelerator.out_rows)

    def _plane_places(self, x: isa.Conv) -> list[tuple[int, int]]:
        """Row of the first pixel, and part of it, of each plane, from the highest down."""
        places, parts = [(x.out, x.out_part)], WORD_BITS // self.accelerator.channels
        for _ in range(x.bits - 1):
            row, part = places[-1]
            borrow, part = divmod(part - self.setup.plane_parts, parts)
            places.append((row - self.setup.plane_rows + borrow, part))
        return places

    def _passes(self, where: str, x: isa.Conv) -> list[dict[str, int]]:
        """Lines of the pass table."""
        first, nibbles = self.setup.first_pass, self.accelerator.depth // isa.NIBBLE_BITS
        table = isa.decode_lines(self.passes[first : first + x.passes], isa.PASS_FIELDS)
        if not table["words"].all() or (isinstance(x, isa.Pool) and table["words"].max() > 1):
            raise AcceleratorError(where, "a pass of no word, or of many in a pool", "Use 1")
        # Of words of more than 64 bits, those that pools and look-ups read.
        table["slice"] = table["first"] // isa.NIBBLES % self.step_units
        table["first"], table["last"] = table["first"] % nibbles, table["last"] % nibbles
        table["upper"] *= self.accelerator.row_steps > 1
        return [dict(zip(table, map(int, line))) for line in zip(*table.values())]

    def _planes(self, where: str, x: isa.Conv) -> Iterator[tuple[np.ndarray, dict[str, int]]]:
        """Per pass the units under each window, (taps x units, pixels), and the pass's fields.

        Pixels are innermost: numpy sums along the first axis many times faster than the last.
        """
        y, column = np.divmod(np.arange(x.pixels), x.out_width)
        index = y * x.row_pixels + column
        first_tap = self.setup.first_tap
        tap = isa.decode_lines(self.tap[first_tap : first_tap + x.taps], isa.TAP_FIELDS)
        passes = self._passes(where, x)
        size = self.accelerator.act_rows * self.accelerator.pixels
        _check_range(where, "act, in pixels,", int(index.max()), size)
        if tap["offset"].min() < -size or tap["offset"].max() >= size:
            raise AcceleratorError(where, "a tap's offset leaves act", "Stay inside")
        y = ((y + x.first_row) * x.stride_y)[:, None] + tap["dy"]
        column = (column * x.stride_x)[:, None] + tap["dx"]
        inside = (y & POSITION < x.in_height) & (column & POSITION < x.in_width)
        index = np.where(inside, index[:, None] + tap["offset"], 0)
        _check_range(where, "act", -int(index.min()), 1)
        line = x.act + index // self.accelerator.pixels
        bank = (index % self.accelerator.pixels)[..., None]
        ends = ((p["upper"] + p["words"] - 1) // self.accelerator.row_steps for p in passes)
        last = max(each["act"] + end * x.word_rows for each, end in zip(passes, ends))
        last += int(np.where(inside, line, 0).max())
        _check_range(where, "act", last if inside.any() else 0, self.accelerator.act_rows)
        runs: dict[tuple[int, ...], np.ndarray] = {}
        for each in passes:
            key = tuple(each[name] for name in ("act", "words", "first", "last", "upper"))
            if key not in runs:
                mask = self._mask(*key[1:4])
                row, unit = np.divmod(each["upper"] + np.arange(len(mask)), self.row_units)
                rows = line[..., None] + each["act"] + row * x.word_rows
                found = self.act[np.where(inside[..., None], rows, 0), bank, unit]
                found = np.where(inside[..., None], found & mask, mask.dtype.type(0))
                runs[key] = np.ascontiguousarray(found.reshape(x.pixels, -1).T)
            yield runs[key], each

    def _mask(self, words: int, first: int, last: int) -> np.ndarray:
        """Bits of a run's units that count: from nibble `first` to `last` of its last word."""
        dtype, depth = self.act.dtype, self.accelerator.depth
        end = isa.NIBBLE_BITS * (last + 1) + (words - 1) * depth
        bits = (1 << end) - 1 >> isa.NIBBLE_BITS * first << isa.NIBBLE_BITS * first
        return np.frombuffer(bits.to_bytes(words * depth // 8, "little"), dtype.newbyteorder("<"))

    def _count(self, where: str, x: isa.Conv) -> tuple[np.ndarray, np.ndarray]:
        """Differing bits (pixels, DM) and ones (pixels,), in Horner's order of planes."""
        size = self.accelerator.weight_rows
        differing = np.zeros((x.pixels, self.accelerator.channels), np.int64)
        ones = np.zeros(x.pixels, np.int64)
        for units, each in self._planes(where, x):
            first, rows = x.weight + each["weight"], -(-len(units) // self.row_units)
            _check_range(where, "weight", first + rows - 1, size)
            differing <<= each["shift"]
            ones <<= each["shift"]
            weights = self.weight[first : first + rows].swapaxes(1, 2)
            weights = weights.reshape(-1, self.accelerator.channels, 1)[: len(units)]
            counts = (
                self._looked_up(self._part(x, units, each), weights[:: self.step_units])
                if x.depthwise
                else np.bitwise_count(units[:, None] ^ weights)
            )
            differing += counts.sum(axis=0, dtype=np.int64).T
            if each["ones"]:
                ones += np.bitwise_count(units).sum(axis=0, dtype=np.int64)
        return differing, ones

    def _part(self, x: isa.Conv, units: np.ndarray, line: dict[str, int]) -> np.ndarray:
        """Bits of DM channels in each word of DK bits, int64 (steps, DM, pixels)."""
        channels, unit_bits = self.accelerator.channels, 8 * units.itemsize
        shift = (np.arange(channels)[:, None] + x.sub_word * channels) % unit_bits
        words = units[line["slice"] :: self.step_units, None]
        return (words >> shift.astype(units.dtype) & 1).astype(np.int64)

    def _looked_up(self, bits: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Numbers that single bits of the activations choose: (steps, DM, pixels)."""
        weights, mask = weights.astype(np.int64), (1 << isa.LOOKUP_BITS) - 1
        return np.where(bits, weights >> isa.LOOKUP_BITS & mask, weights & mask)

    def _search(self, where: str, x: isa.Conv, acc: np.ndarray, copy: int) -> np.ndarray:
        """Binary search among the thresholds of a copy: codes (pixels, DM)."""
        channel = np.arange(self.accelerator.channels)
        first = x.param + x.thresholds + copy * _threshold_rows(x)
        falls = (self.param[x.param + 1] >> copy & 1).astype(bool)
        code = self._residual(where, x)
        for decided in range(x.bits):
            reached = (acc >= self.param[first + code, channel]) ^ falls[: len(channel)]
            first += 1 << (x.residual_bits + decided)
            code = 2 * code + reached
        return code & (1 << x.bits) - 1

    def _residual(self, where: str, x: isa.Conv) -> np.ndarray:
        """Codes (pixels, DM) of the residual, 0 without one."""
        channels, bits = self.accelerator.channels, x.residual_bits
        if not bits:
            return np.zeros((x.pixels, channels), np.int64)
        end = x.residual + x.pixels * bits
        _check_range(where, "residual", end - 1, self.accelerator.residual_rows)
        words = self.residual[x.residual : end].reshape(x.pixels, bits, 1)
        shift = (np.arange(channels) + x.sub_word * channels).astype(np.uint64)
        planes = (words >> shift & np.uint64(1)).astype(np.int64)
        return (planes << np.arange(bits)[:, None]).sum(axis=1)

    def _write_codes(self, x: isa.Conv, code: np.ndarray) -> None:
        """Planes of the codes go to their part of each word."""
        if self.setup.pixel_rows:
            self._write_side_by_side(x, code)
            return
        channel = np.arange(self.accelerator.channels)
        last = x.out + x.pixels * x.bits
        planes = (code[:, None, :] >> np.arange(x.bits)[:, None]) & 1
        part = (planes.astype(np.uint64) << channel.astype(np.uint64)).sum(axis=-1, dtype=np.uint64)
        first = x.sub_word * self.accelerator.channels
        part = part.reshape(-1) << np.uint64(first)
        mask = np.uint64((1 << self.accelerator.channels) - 1 << first)
        kept = self.out[x.out : last] & ~mask if first else np.uint64(0)
        self.out[x.out : last] = kept | part

    def _write_side_by_side(self, x: isa.Conv, code: np.ndarray) -> None:
        """Where places overlap, as of wrong programs, the last one counts: tiles in their order."""
        size, places = code.shape[1], np.array(self._plane_places(x))
        plane, pixel = map(np.ravel, np.indices((x.bits, x.pixels)))
        order = np.lexsort((plane, pixel // self.accelerator.pixels))
        plane, pixel = plane[order], pixel[order]
        rows = places[plane, 0] + pixel * self.setup.pixel_rows
        bits = code[pixel] >> (x.bits - 1 - plane)[:, None] & 1
        shifts = (np.arange(WORD_BITS // size) * size).astype(np.uint64)
        parts = self.out[:, None] >> shifts & np.uint64((1 << size) - 1)
        parts[rows, places[plane, 1]] = bits @ (1 << np.arange(size))
        self.out[:] = np.bitwise_or.reduce(parts << shifts, axis=1)

    def _write_accumulators(self, x: isa.Conv, acc: np.ndarray) -> None:
        kind = np.int16 if x.narrow else np.int32
        acc = np.pad(acc, [(0, 0), (0, acc.shape[1] % 2)])
        words = acc.astype(kind).view(np.uint64).reshape(-1)
        self.out[x.out : x.out + words.size] = words


def _signed(values: np.ndarray, bits: int) -> np.ndarray:
    """Lowest bits of integers, as two's complement."""
    return ((values.astype(np.int64) + (1 << bits - 1)) & (1 << bits) - 1) - (1 << bits - 1)


def _threshold_rows(x: isa.Conv) -> int:
    """Rows of one copy's thresholds."""
    return (1 << x.bits) - 1 << x.residual_bits


def _check_range(where: str, what: str, last: int, size: int) -> None:
    if last >= size:
        raise AcceleratorError(where, f"reaches {what} {last}, of {size}", "Stay inside")
