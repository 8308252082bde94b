"""Float arithmetic in Verilog, bit for bit that of numpy, a result every cycle."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.vta.cases import needs_verilator
from tvm_bitenc.data import data_folder
from tvm_bitenc.op.multiply_add import fused_multiply_add

pytestmark = needs_verilator
RTL = data_folder("targets") / "vta" / "rtl"
HERE = Path(__file__).parent
UNITS = ("leading_zeros", "int_to_float", "float_multiply", "float_multiply_add", "float_add")
LATENCIES = dict(converted=4, product=3, multiplied_added=7, sum=6)


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    """``units(a, b, c)``: what each unit makes of float32 arrays, by name."""
    folder = tmp_path_factory.mktemp("units")
    sources = [RTL / "waive.vlt", HERE / "float_units.v", *(RTL / f"{unit}.v" for unit in UNITS)]
    command = [
        *("verilator", "--cc", "-O3", "-Wall", "-Wno-DECLFILENAME", "--exe", "--build"),
        *("--top-module", "float_units", "--Mdir", folder, "-o", "library.so"),
        *("-CFLAGS", "-O1 -fPIC", "-LDFLAGS", "-shared"),
        *(*sources, HERE / "float_units.cpp"),
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    library = ctypes.CDLL(str(folder / "library.so"))

    def run(a, b, c):
        given = [np.ascontiguousarray(x).view(np.uint32) for x in (a, b, c)]
        given.append(np.array([*LATENCIES.values()], np.uint32))
        found = np.empty((len(LATENCIES), len(a)), np.uint32)
        pointers = (x.ctypes.data_as(ctypes.c_void_p) for x in (*given, found))
        library.run(ctypes.c_size_t(len(a)), *pointers)
        return dict(zip(LATENCIES, found.view(np.float32)))

    return run


def same_bits(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether all are equal in their bits; NaN is NaN."""
    is_equal = found.view(np.uint32) == expected.astype(np.float32).view(np.uint32)
    return bool(np.all(is_equal | np.isnan(found) & np.isnan(expected)))


def numbers(rng: np.random.Generator, count: int, low: int, high: int) -> np.ndarray:
    """Float32 numbers with exponents from low to high - 1: zeros, powers of two, ends, and any."""
    bits = rng.integers(low + 127, high + 127, count) << 23
    fraction = rng.integers(0, 1 << 23, count)
    ends = (1 << rng.integers(0, 24, count)) - 1  # 0, and ones from the lowest bit up.
    ends ^= rng.integers(0, 2, count) * 0x7FFFFF
    bits |= np.where(rng.integers(0, 2, count), fraction, ends & 0x7FFFFF)
    bits = np.where(rng.integers(0, 20, count) == 0, 0, bits)
    return (bits | rng.integers(0, 2, count) << 31).astype(np.uint32).view(np.float32)


def near(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Negated numbers some last places and exponents away, so that sums cancel."""
    bits = x.view(np.uint32).astype(np.int64) ^ 1 << 31
    bits += rng.integers(-3, 4, x.size) + (rng.integers(-2, 3, x.size) << 23)
    is_normal = (bits >> 23 & 255 > 0) & (bits >> 23 & 255 < 255)
    return np.where(is_normal, bits, 0).astype(np.uint32).view(np.float32)


def test_integers(units):
    """Random ones of all sizes, and halves between neighbouring numbers."""
    rng = np.random.default_rng(0)
    random = rng.integers(-(2**31), 2**31, 200_000) >> rng.integers(0, 31, 200_000)
    steps = (2 * rng.integers(2**23, 2**24, 100_000) + 1) << rng.integers(0, 7, 100_000)
    halves = np.clip(steps, 0, 2**31 - 2) + rng.integers(-1, 2, 100_000)
    ends = [0, 1, -1, 2**24, 2**24 + 1, 2**31 - 1, -(2**31)]
    values = np.concatenate([random, halves, -halves, ends]).astype(np.int32)
    found = units(values.view(np.float32), *2 * [np.zeros(len(values), np.float32)])["converted"]
    assert same_bits(found, values.astype(np.float32))


def check_products_and_sums(units, count: int, seed: int) -> None:
    """Operands whose products and sums are normal numbers or 0, as the compiler gives them."""
    rng = np.random.default_rng(seed)
    a, b = numbers(rng, count, -20, 30), numbers(rng, count, -20, 20)
    product = (a.astype(np.float64) * b).astype(np.float32)
    kind = rng.integers(0, 4, count)
    c = np.select(
        [kind == 0, kind == 1], [near(rng, product), numbers(rng, count, -60, 80)],
        numbers(rng, count, -30, 40),
    )  # fmt: skip
    found = units(a, b, c)
    assert same_bits(found["product"], product)
    assert same_bits(found["multiplied_added"], fused_multiply_add(a, b, c))


def check_all_sums(units, count: int, seed: int) -> None:
    """Any two bit patterns, and such as cancel, lie at the ends, or are no numbers."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 1 << 32, count, np.uint32).view(np.float32)
    low, high = (numbers(rng, count, *ends) for ends in ((-127, -122), (124, 129)))
    middle, kind = numbers(rng, count, -30, 30), rng.integers(0, 4, count)
    a = np.choose(kind, [a, low, high, middle])
    other = np.choose(kind, [a[::-1], rng.permutation(low), rng.permutation(high), middle[::-1]])
    b = np.where(rng.integers(0, 2, count), near(rng, a), other)
    with np.errstate(all="ignore"):
        assert same_bits(units(a, b, a)["sum"], a + b)


def test_products_and_sums(units):
    check_products_and_sums(units, 300_000, 0)


def test_all_sums(units):
    check_all_sums(units, 300_000, 0)


@pytest.mark.slow
@pytest.mark.parametrize("check", [check_products_and_sums, check_all_sums])
def test_millions(check, units):
    for seed in range(1, 6):
        check(units, 1_000_000, seed)


@pytest.mark.skipif(not shutil.which("yosys"), reason="install yosys")
@pytest.mark.parametrize("unit", UNITS)
def test_no_latches(unit):
    read = " ".join(str(RTL / f"{name}.v") for name in UNITS)
    script = f"read_verilog -sv {read}; hierarchy -check -top {unit}; proc; check -assert;"
    script += " select -assert-none t:$dlatch"
    done = subprocess.run(["yosys", "-q", "-p", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
