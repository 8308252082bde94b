"""Instructions give what `isa_meaning` says, lane by lane, on every instruction set at hand."""

import inspect

import numpy as np
import pytest
import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from benchmarks.emulated import EmulatedKernel, missing_tools
from tvm_bitenc.host import host_features
from tvm_bitenc.kernel import isa_meaning
from tvm_bitenc.kernel.isa import Isa
from tvm_bitenc.kernel.neon import Neon
from tvm_bitenc.kernel.scalar import Scalar
from tvm_bitenc.kernel.tir import imported, load, store
from tvm_bitenc.schedule import avx2, avx512, dotprod, i8mm, neon, scalar
from tvm_bitenc.target import load_target

ALIGNMENT = 64
ARM = ("cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n2", "armv7-neon")
# What rules don't ask of an instruction set; some properties of it say so.
OF_VBMI = {"wide_lookup", "bits_from", "repeated_octets"}
OF_GFNI = {"transpose_bits", "select_bits"}
OF_BITS = {"saturated_bytes", "lookup_words", *OF_GFNI, *OF_VBMI}
LACKING = {
    "avx2": {*OF_BITS, "dot"},
    "avx512": {"dot", *OF_GFNI, *OF_VBMI},
    "avx2 with dot products": OF_BITS,
    "avx512 of Zen 4": set(),
    "neon": {*OF_BITS, "sum_bytes", "dot", "matrix"},
    "dotprod": {*OF_BITS, "sum_bytes", "matrix"},
    "i8mm": {*OF_BITS, "sum_bytes"},
}
X86 = {
    "avx2": (avx2, "x86-64-v3", []),
    "avx2 with dot products": (avx2, "x86-64-v3", ["+avxvnni"]),
    "avx512": (avx512, "x86-64-v4", []),
    "avx512 of Zen 4": (avx512, "znver4", []),
}


def methods_of(kind):
    """Names of the instructions that a class offers."""
    found = inspect.getmembers(kind, inspect.isfunction)
    return {name for name, _ in found if not name.startswith("_")}


def test_every_method_has_a_meaning():
    own = inspect.getmembers(isa_meaning, inspect.isfunction)
    assert methods_of(Isa) < methods_of(Neon)
    assert methods_of(Neon) | methods_of(Scalar) == {name for name, _ in own if name[0] != "_"}


def mixed(a, b, c):
    return a ^ (c & ~(a ^ b))


def operands_of(isa):
    """Random operands of every instruction, some more than once; lists are vectors."""
    rng, n = np.random.default_rng(0), isa.vector_bytes

    def draw(dtype, low=None, high=None, size=n):
        info = np.iinfo(dtype)
        low, high = (info.min if low is None else low), (info.max if high is None else high)
        return rng.integers(low, high, size * 8 // info.bits, dtype, endpoint=True)

    if isinstance(isa, Scalar):
        for high in (False, True):
            yield "halves_of_bytes", draw("int32"), high
        yield "multiply_add_halves", draw("int32", -(2**20), 2**20), *pairs_of_halves(draw)
        return
    octets, words, wide = draw("uint8"), draw("int16"), draw("int32")
    codes = draw("uint8", 0, isa.most_code)
    planes = [draw("uint64") for _ in range(3)]
    small = draw("uint8", 0, 127), draw("int8", -64, 63)  # Two products fit 16 bits.
    yield "transpose_bits", octets
    for bits in ((2, 3, 3, 3, 3, 3, 3, 3), (7, 0, 6, 1, 5, 2, 4, 3)):
        yield "select_bits", draw("int8"), bits
    yield "saturated_bytes", [draw("int32", -300, 600) for _ in range(4)]
    yield "saturated_bytes", [draw("int32") for _ in range(4)]
    for function in (mixed, lambda a, b, c: (a & b) | ~c, lambda a, b, c: a ^ b ^ c):
        yield "logic", function, *planes
    yield "lookup", octets, draw("uint8", 0, 15)
    yield "wide_lookup", octets, draw("uint8", 0, n - 1)
    yield "repeated_octets", octets, (n // 8 - 1, 0)
    yield "lookup_words", [words, draw("int16")], draw("uint16")
    for entries in (16, 32, 64):
        if entries <= isa.most_entries:
            parts = [draw("uint8", size=min(entries, n)) for _ in range(max(entries // n, 1))]
            yield "table_lookup", parts, entries, draw("uint8", 0, entries - 1)
    for start in {0, 64 - n}:
        yield "choose_by_bits", draw("uint64", size=8), start, octets, draw("uint8")
    yield "bits_from", draw("uint8", 0, 63), draw("uint8")
    yield "sum_bytes", octets
    yield "dot", draw("int32", -(2**30), 2**30), codes, draw("int8")
    yield "multiply_add_bytes", *small
    yield "multiply_add_words", draw("int16", -32767), words
    yield "add_in_place", draw("uint8", 0, 127), draw("uint8", 0, 128)
    yield "nibbles", octets
    yield "popcount_bytes", octets
    if not isinstance(isa, Neon):
        return
    yield "select", *planes
    for half in (0, 1):
        yield "multiply_pairs", None, *small, half
        yield "multiply_pairs", draw("int16", -(2**13), 2**13), *small, half
    yield "add_pairs_of_words", wide, words
    yield "matrix", wide, octets, draw("int8")
    yield "add_pairs_of_bytes", octets
    for size in (n, n // 2):
        yield "add_neighbours", draw("uint16", size=size), draw("uint16", size=size)
    yield "add_neighbours", words, draw("int16")


def pairs_of_halves(draw):
    """Two operands of pairs whose products fit 32 bits."""
    return [draw("int16", -(2**14), 2**14).view(np.int32) for _ in range(2)]


def offered(isa):
    """Instructions with their operands, and the names of those that aren't there."""
    found, lacking = [], set()
    for name, *operands in operands_of(isa):
        try:
            with IRBuilder(), T.prim_func():
                values = [placeholder(operand) for operand in operands]
                getattr(isa, name)(*values)
            found.append((name, operands))
        except KeyError:
            lacking.add(name)
    return found, lacking


def placeholder(operand):
    """Zeros instead of an operand's arrays."""
    if isinstance(operand, list):
        return [placeholder(part) for part in operand]
    if not isinstance(operand, np.ndarray):
        return operand
    return load(T.alloc_buffer(operand.shape, str(operand.dtype)), 0, len(operand))


class Memory:
    """Arrays one behind the other in one buffer of bytes."""

    def __init__(self):
        self.arrays, self.size = [], 0

    def put(self, array):
        """Add an array, and return where it begins."""
        start, self.size = self.size, -(-(self.size + array.nbytes) // ALIGNMENT) * ALIGNMENT
        self.arrays.append((start, array))
        return start

    def bytes(self):
        found = np.zeros(self.size, np.uint8)
        for start, array in self.arrays:
            found[start : start + array.nbytes] = array.view(np.uint8)
        return found


def function_of(isa, calls):
    """A function of one buffer to another, its input, and what it must give."""
    inputs, outputs = Memory(), Memory()
    for _, operands in calls:
        for operand in operands:
            for array in operand if isinstance(operand, list) else [operand]:
                if isinstance(array, np.ndarray):
                    inputs.put(array)
    expected = [getattr(isa_meaning, name)(*operands) for name, operands in calls]
    for result in expected:
        for array in result if isinstance(result, tuple) else [result]:
            outputs.put(array)
    starts, places = iter(inputs.arrays), iter(outputs.arrays)
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        source = T.arg("source", T.buffer((inputs.size,), "uint8"))
        target = T.arg("target", T.buffer((outputs.size,), "uint8"))

        def loaded(operand):
            if isinstance(operand, list):
                return [loaded(part) for part in operand]
            if not isinstance(operand, np.ndarray):
                return operand
            start, array = next(starts)
            return T.Bind(
                load(view(source, inputs.size, array), start // array.itemsize, array.size)
            )

        with imported(isa.functions):
            for name, operands in calls:
                result = getattr(isa, name)(*[loaded(operand) for operand in operands])
                for value in result if isinstance(result, tuple) else [result]:
                    start, array = next(places)
                    place = view(target, outputs.size, array)
                    store(place, value, start // array.itemsize, array.size)
    return builder.get(), inputs, outputs


def view(buffer, size, array):
    """A buffer of bytes as one of an array's type."""
    dtype, count = str(array.dtype), size // array.itemsize
    return T.decl_buffer((count,), dtype, data=buffer.data)


def differing(calls, outputs, found):
    """Names of the instructions whose results aren't what they mean."""
    pairs = ("nibbles", "repeated_octets")
    names = [name for name, _ in calls for _ in range(2 if name in pairs else 1)]
    return [
        name
        for name, (start, array) in zip(names, outputs.arrays, strict=True)
        if found[start : start + array.nbytes].tobytes() != array.tobytes()
    ]


@pytest.mark.parametrize("name", X86)
def test_x86(name):
    rules, cpu, features = X86[name]
    triple = "x86_64-linux-gnu"
    config = {"kind": "llvm", "mtriple": triple, "mcpu": cpu, "mattr": features}
    target = load_target(tvm.target.Target(config))
    missing = {f for f in target.features if f.startswith(("avx", "gfni"))} - host_features()
    if missing:
        pytest.skip(f"this CPU lacks {sorted(missing)}: run the tests on one that has them as well")
    isa = rules.isa_of(target)
    calls, lacking = offered(isa)
    assert lacking == LACKING[name]
    assert {call for call, _ in calls} | lacking == methods_of(Isa)
    function, inputs, outputs = function_of(isa, calls)
    source = tvm.runtime.tensor(inputs.bytes())
    result = tvm.runtime.tensor(np.zeros(outputs.size, np.uint8))
    tvm.compile(tvm.IRModule({"main": function}), target=target.tvm_target)["main"](source, result)
    assert differing(calls, outputs, result.numpy()) == []


@pytest.mark.parametrize("name", ARM)
def test_arm(name):
    target = load_target(name, threads=1)
    if reason := missing_tools(target):
        pytest.skip(reason)
    isa = next(filter(None, (module.isa_of(target) for module in (i8mm, dotprod, neon))))
    calls, lacking = offered(isa)
    assert lacking == LACKING[isa.name]
    assert {call for call, _ in calls} | lacking == methods_of(Neon)
    function, inputs, outputs = function_of(isa, calls)
    run = EmulatedKernel(function, target).run([inputs.bytes()], (outputs.size,), "uint8")
    assert differing(calls, outputs, run.output) == []


@pytest.mark.parametrize("name", ["cortex-m4", "cortex-m7"])
def test_pairs_of_microcontrollers(name):
    target = load_target(name, threads=1)
    if reason := missing_tools(target):
        pytest.skip(reason)
    isa = scalar.isa_of(target)
    assert isa.has_pairs and not scalar.isa_of(load_target("cortex-m3")).has_pairs
    calls, lacking = offered(isa)
    assert not lacking
    assert {call for call, _ in calls} == methods_of(Scalar) - methods_of(Isa)
    function, inputs, outputs = function_of(isa, calls)
    run = EmulatedKernel(function, target).run([inputs.bytes()], (outputs.size,), "uint8")
    assert differing(calls, outputs, run.output) == []
