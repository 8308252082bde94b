"""Products of two matrices of codes on all instruction sets at hand, against their integers."""

import itertools

import numpy as np
import pytest
import tvm
from tvm import tirx

import tvm_bitenc
from benchmarks.emulated import EmulatedModule, missing_tools
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.host import host_features
from tvm_bitenc.op import branch_matmul
from tvm_bitenc.target import load_target

# (batch, rows, terms, columns): whole tiles and vectors, and some left over on every side.
SHAPES = [(2, 7, 19, 21), (1, 1, 1, 1), (3, 13, 64, 130), (1, 50, 7, 16), (1, 8, 130, 65)]
BITS = ((1, 1), (2, 2), (1, 8), (3, 5), (4, 4), (6, 6), (7, 7), (8, 7), (7, 8), (8, 8), (8, 8))
UNUSUAL = [
    (Encoding.ternary(), Encoding.ternary()),
    (Encoding(3, 1.0, 0.5, (1, 1, 3)), Encoding(8, 1.0, 100.5)),
    (Encoding(8, 1.0, 300.0), Encoding(8, 1.0, -300.5)),  # No code stands for 0.
    (Encoding(2, 1.0, 0.5, (1, -2)), Encoding.signed(4)),
    (Encoding(8, 1.0, 0.0, (2, 2, 4, 8, 16, 32, 64, 128)), Encoding.unsigned(8)),
]


def some_pairs(kinds):
    """Encodings of all bits of `BITS` with shapes, kinds in turn, and unusual ones."""
    rest = itertools.cycle(itertools.product(kinds.values(), kinds.values()))
    pairs = [(a(m), b(k)) for (m, k), (a, b) in zip(BITS, rest)] + UNUSUAL
    return [(*pair, shape) for pair, shape in zip(pairs, itertools.cycle(SHAPES))]


def codes_of(encoding, shape, is_extreme):
    """Random codes, or none but the smallest and the largest: their sums go furthest."""
    rng = np.random.default_rng(0)
    if is_extreme:
        return rng.integers(0, 2, shape, dtype=np.uint8) * np.uint8(2**encoding.bits - 1)
    return rng.integers(0, 2**encoding.bits, shape, dtype=np.uint8)


@pytest.fixture
def check(module_of):
    """Multiply matrices of (left, right, shape), by a function of a module and its inputs.

    Every third of the right ones is stored as (columns, terms).
    """

    def check(pairs, run):
        inputs = []
        for i, (a, b, (batch, rows, terms, columns)) in enumerate(pairs):
            inputs.append(codes_of(a, (batch, rows, terms), i % 2))
            sides = (terms, columns) if i % 3 else (columns, terms)
            inputs.append(codes_of(b, (batch, *sides), i % 2 or i % 4))

        def body(builder, *xs):
            return [
                builder.emit(branch_matmul(x, a, y, b, transpose_b=i % 3 == 0))
                for i, ((a, b, _), x, y) in enumerate(zip(pairs, xs[::2], xs[1::2]))
            ]

        outputs = run(module_of([x.shape for x in inputs], body, "uint8"), inputs)
        rights = [y if i % 3 else y.swapaxes(1, 2) for i, y in enumerate(inputs[1::2])]
        found = zip(pairs, inputs[::2], rights, outputs, strict=True)
        assert not [
            f"{a.bits} x {b.bits} bits, z = {a.zero_point} and {b.zero_point}, {shape}"
            for (a, b, shape), x, y, acc in found
            if not np.array_equal(acc, a.integers(x).astype(np.int64) @ b.integers(y))
        ]

    return check


@pytest.fixture
def check_here(check, outputs_of):
    """The same on this machine."""

    def run(pairs, **options):
        check(pairs, lambda mod, inputs: outputs_of(mod, inputs, **options))

    return run


@pytest.mark.sweep(1)
def test_some_bits(target, check_here, kinds):
    check_here(some_pairs(kinds), target=target, threads=1)


def test_avx512_without_dot_products(plain_avx512, check_here, kinds):
    check_here(some_pairs(kinds), target=plain_avx512, threads=1)


def test_avx2_with_dot_products(check_here, kinds):
    config = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "x86-64-v3"}
    target = load_target(tvm.target.Target({**config, "mattr": ["+avxvnni"]}))
    missing = {feature for feature in target.features if feature.startswith("avx")}
    if missing := missing - host_features():
        pytest.skip(f"this CPU lacks {sorted(missing)}: run the tests on one that has them as well")
    check_here(some_pairs(kinds), target=target, threads=1)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(3))
def test_all_bits(first, target, check_here, kinds):
    """Every pair of bits three times: every kind on either side, and all nine pairs of kinds."""
    bits, every = itertools.product(range(1, 9), range(1, 9)), [*kinds.values()]
    shapes = itertools.cycle(SHAPES)
    pairs = [
        (every[(m + first) % 3](m), every[(m // 3 + k + 2 * first) % 3](k), shape)
        for (m, k), shape in zip(bits, shapes)
    ]
    check_here(pairs, target=target, threads=1)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("threads", [2, 5, 64])
def test_parts_of_rows(threads, target, check_here):
    # Work for several threads: one product, whose rows are divided, and some left over.
    one, eight = Encoding.unsigned(1), Encoding.symmetric(8)
    shapes = (1, 137, 193, 160), (3, 66, 256, 128), (1, 100, 256, 180)
    pairs = [(side, eight, shape) for shape in shapes for side in (one, eight)]
    check_here(pairs, target=target, threads=threads)


def test_any_batch(target, module_of):
    batch, symmetric, signed = tirx.Var("n", "int64"), Encoding.symmetric(8), Encoding.signed(3)
    shapes = [(batch, 9, 70), (batch, 70, 33)]
    mod = module_of(shapes, lambda f, x, y: f.emit(branch_matmul(x, signed, y, symmetric)), "uint8")
    lib = tvm_bitenc.build(mod, target=target)
    for count in (1, 2, 7):
        x, y = codes_of(signed, (count, 9, 70), False), codes_of(symmetric, (count, 70, 33), True)
        assert np.array_equal(lib(x, y), signed.integers(x) @ symmetric.integers(y))


@pytest.mark.parametrize(
    "name",
    ["neoverse-n2", *(pytest.param(f"cortex-a{n}", marks=pytest.mark.slow) for n in (53, 76))],
)
def test_arm(name, check, kinds):
    target = load_target(name, threads=1)
    if reason := missing_tools(target):
        pytest.skip(reason)
    check(some_pairs(kinds), lambda mod, inputs: EmulatedModule(mod, target).run(*inputs).outputs)
