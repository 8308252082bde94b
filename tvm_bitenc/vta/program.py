"""A compiled program: instructions, constants, and where its tensors lie in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from . import isa
from .window_packing import WindowPacking


@dataclass(frozen=True, eq=False)
class Program:
    """What the accelerator runs.

    Memory holds instructions, constants, input and output, in this order. Addresses count words.

    Parameters
    ----------
    instructions : tuple of Instruction
    constants : ndarray of uint64
    input_words, output_words : int
    macs : int
        Binary multiply-accumulates that the layer needs, for its utilization.
    copies : int
        How many output channels share each accumulator that the program writes, in order.
    narrow : bool
        Whether accumulators that it writes have 16 bits instead of 32.
    packing : WindowPacking, optional
        How the CPU packs the planes of the input when it hands them over.
    spacing : int
        From one accumulator to the next: 2 where a single one fills a word.
    """

    instructions: tuple[isa.Instruction, ...]
    constants: np.ndarray
    input_words: int
    output_words: int
    macs: int = 0
    copies: int = 1
    narrow: bool = False
    packing: WindowPacking | None = None
    spacing: int = 1

    @property
    def constants_address(self) -> int:  # noqa: D102
        return len(self.instructions) * isa.INSTRUCTION_WORDS

    @property
    def input_address(self) -> int:  # noqa: D102
        return self.constants_address + self.constants.size

    @property
    def output_address(self) -> int:  # noqa: D102
        return self.input_address + self.input_words

    @property
    def memory_words(self) -> int:  # noqa: D102
        return self.output_address + self.output_words

    def linked(self, relative: dict[int, str]) -> Program:
        """Return the program with addresses made absolute.

        Parameters
        ----------
        relative : dict of int to str
            Per instruction with an address, what it counts from: constants, input or output.
        """
        linked = list(self.instructions)
        for index, name in relative.items():
            base = getattr(self, f"{name}_address")
            instruction = linked[index]
            assert isinstance(instruction, (isa.Load, isa.Store))  # Only these have an address.
            linked[index] = replace(instruction, dram=instruction.dram + base)
        return replace(self, instructions=tuple(linked))

    def accumulators(self, words: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Output words as accumulators int32 of a shape, the last axis the channels'.

        The array computes DM channels at a time; what stands behind the channels is left out.
        """
        found = words.view(np.int16 if self.narrow else np.int32).reshape(*shape[:-1], -1)
        found = found[..., :: self.spacing]
        return np.tile(found[..., : shape[-1] // self.copies].astype(np.int32), self.copies)

    @property
    def operand_words(self) -> int:
        """Words that the CPU takes to hand over: those of the input before they are packed."""
        if self.packing is None:
            return self.input_words
        return self.input_words - self.packing.packed_words + self.packing.image_words

    def image(self, planes: np.ndarray) -> np.ndarray:
        """Memory before the program runs: uint64, from packed planes (N, H, W, bits, words).

        Planes of a residual follow those of the input.
        """
        words = planes.reshape(-1)
        if self.packing is not None:
            own, rest = np.split(words, [self.packing.image_words])
            words = np.concatenate([self.packing.packed(own).reshape(-1), rest])
        memory = np.zeros(self.memory_words, np.uint64)
        for i, instruction in enumerate(self.instructions):
            first = i * isa.INSTRUCTION_WORDS
            memory[first : first + isa.INSTRUCTION_WORDS] = isa.encode(instruction)
        memory[self.constants_address : self.input_address] = self.constants
        memory[self.input_address : self.output_address] = words
        return memory

    def run(self, planes: np.ndarray, execute: Callable[[np.ndarray, int], None]) -> np.ndarray:
        """Output words, flat, of packed planes.

        Parameters
        ----------
        planes : ndarray of uint64
        execute : callable
            Runs so many instructions from word 0 of a memory, in place.
        """
        memory = self.image(planes)
        execute(memory, len(self.instructions))
        return memory[self.output_address :]
