"""A compiled program: instructions, constants, and where its tensors lie in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from . import isa
from .tensor import Layout, packed_densely
from .window_packing import WindowPacking


@dataclass(frozen=True)
class Input:
    """What the CPU hands over: packed planes of an operand, flat.

    Parameters
    ----------
    operand : int
        Which operand of the program.
    address, words : int
        In the tensors' memory.
    packing : WindowPacking, optional
        How the CPU packs the planes when it hands them over.
    """

    operand: int
    address: int
    words: int
    packing: WindowPacking | None = None

    @property
    def operand_words(self) -> int:
        """Words before they are packed."""
        return self.words if self.packing is None else self.packing.image_words


@dataclass(frozen=True)
class Output:
    """What the CPU takes: planes of codes, accumulators, or float32 numbers.

    Parameters
    ----------
    address, words : int
        In the tensors' memory.
    layout : Layout
        Where the channels of planes lie, if it isn't as the CPU packs them.
    kind : {"planes", "accumulators", "floats"}
    copies : int
        How many output channels share each accumulator, in order.
    narrow : bool
        Whether accumulators have 16 bits instead of 32.
    spacing : int
        From one accumulator to the next: 2 where a single one fills a word.
    """

    address: int
    words: int
    layout: Layout = ()
    kind: str = "planes"
    copies: int = 1
    narrow: bool = False
    spacing: int = 1

    def shaped(self, words: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Words as uint64 planes (..., bits, words), or int32 or float32 (..., channels).

        The array computes DM channels at a time; what stands behind the channels is left out.
        """
        if self.kind == "floats":
            return words.view(np.float32).reshape(*shape[:-1], -1)[..., : shape[-1]]
        if self.kind == "accumulators":
            found = words.view(np.int16 if self.narrow else np.int32).reshape(*shape[:-1], -1)
            found = found[..., :: self.spacing]
            return np.tile(found[..., : shape[-1] // self.copies].astype(np.int32), self.copies)
        if self.layout:
            size = sum(words for words, _ in self.layout)
            words = packed_densely(words.reshape(*shape[:-1], size), self.layout)
        return words.reshape(shape)


@dataclass(frozen=True)
class Layer:
    """A part of a program.

    Parameters
    ----------
    name : str
    instructions : int
        How many, behind those of the layer before.
    macs : int
        Binary multiply-accumulates that it needs, for its utilization.
    """

    name: str
    instructions: int
    macs: int


@dataclass(frozen=True, eq=False)
class Program:
    """What the accelerator runs.

    Memory holds instructions, constants and tensors, in this order. Addresses count words.

    Parameters
    ----------
    instructions : tuple of Instruction
    constants : ndarray of uint64
    tensor_words : int
    layers : tuple of Layer
    inputs : tuple of Input
    outputs : tuple of Output
    """

    instructions: tuple[isa.Instruction, ...]
    constants: np.ndarray
    tensor_words: int
    layers: tuple[Layer, ...]
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]

    @property
    def constants_address(self) -> int:  # noqa: D102
        return len(self.instructions) * isa.INSTRUCTION_WORDS

    @property
    def tensors_address(self) -> int:  # noqa: D102
        return self.constants_address + self.constants.size

    @property
    def input_address(self) -> int:
        """Of its first input."""
        return self.tensors_address + self.inputs[0].address

    @property
    def output_address(self) -> int:
        """Of its first output."""
        return self.tensors_address + self.outputs[0].address

    @property
    def memory_words(self) -> int:  # noqa: D102
        return self.tensors_address + self.tensor_words

    @property
    def input_words(self) -> int:
        """Words that the CPU writes before a run."""
        return sum(each.words for each in self.inputs)

    @property
    def macs(self) -> int:
        """Binary multiply-accumulates that all layers need."""
        return sum(layer.macs for layer in self.layers)

    @property
    def cpu_bytes(self) -> int:
        """That the CPU writes before a run, and reads after it."""
        return 8 * (self.input_words + sum(each.words for each in self.outputs))

    @cached_property
    def code(self) -> np.ndarray:
        """Instructions and constants as they lie in memory, uint64."""
        return np.concatenate([*map(isa.encode, self.instructions), self.constants])

    @property
    def _operand_sizes(self) -> list[int]:
        sizes = {each.operand: each.operand_words for each in self.inputs}
        return [sizes[operand] for operand in sorted(sizes)]

    def operands(self, sample: Sequence[np.ndarray]) -> np.ndarray:
        """Words of operands, one after the other: of planes, or of float32 (H, W, channels)."""
        found = []
        for array, size in zip(sample, self._operand_sizes):
            if array.dtype == np.float32:  # Words hold the numbers of whole groups of channels.
                pixels = array.reshape(-1, array.shape[-1])
                missing = 2 * size // len(pixels) - pixels.shape[1]
                array = np.ascontiguousarray(np.pad(pixels, [(0, 0), (0, missing)]))
            found.append(array.reshape(-1).view(np.uint64))
        return np.concatenate(found)

    @property
    def operand_words(self) -> int:
        """Words that the CPU takes to hand over: those of all operands before they are packed."""
        return sum(self._operand_sizes)

    def image(self, planes: np.ndarray) -> np.ndarray:
        """Memory before the program runs: uint64.

        Parameters
        ----------
        planes : ndarray of uint64
            Packed planes (H, W, bits, words) of one operand after the other.
        """
        memory = np.zeros(self.memory_words, np.uint64)
        memory[: self.tensors_address] = self.code
        operands = np.split(planes.reshape(-1), np.cumsum(self._operand_sizes)[:-1])
        for each in self.inputs:
            words = operands[each.operand]
            if each.packing is not None:
                words = each.packing.packed(words).reshape(-1)
            first = self.tensors_address + each.address
            memory[first : first + each.words] = words
        return memory

    def results(self, memory: np.ndarray) -> list[np.ndarray]:
        """Words of each output, flat, from the memory after the program ran."""
        starts = [self.tensors_address + each.address for each in self.outputs]
        return [memory[at : at + each.words] for at, each in zip(starts, self.outputs)]

    def run(self, planes: np.ndarray, execute: Callable[[np.ndarray, int], None]) -> np.ndarray:
        """Words of the first output, flat, of packed planes.

        Parameters
        ----------
        planes : ndarray of uint64
            As for `image`.
        execute : callable
            Runs so many instructions from word 0 of a memory, in place.
        """
        memory = self.image(planes)
        execute(memory, len(self.instructions))
        return self.results(memory)[0]
