"""Which kernel a product of two matrices of codes gets, and tiles that fit it."""

import itertools

import pytest

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.kernel.matmul.size import MatmulSize
from tvm_bitenc.op import branch_matmul
from tvm_bitenc.schedule import avx2, avx512, generic, i8mm, rule_sets_of
from tvm_bitenc.schedule.matmul import default_tile
from tvm_bitenc.target import load_target
from tvm_bitenc.transform.visit import visit_calls

FOUR, NEGATIVE = Encoding.symmetric(4), Encoding(2, 1.0, 0.5, (1, -2))
MAKERS = [
    *((name, FOUR, "avx512") for name in ("x86-64-v4", "znver5")),
    ("x86-64-v3", FOUR, "avx2"),
    ("cortex-a76", FOUR, "dotprod"),
    ("neoverse-n2", FOUR, "i8mm"),
    # Neither products of 8 bits nor of 16 beat what LLVM makes of the definition.
    *((name, FOUR, "generic") for name in ("cortex-a53", "armv7-neon", "cortex-m4")),
    ("x86-64-v3", NEGATIVE, "generic"),
]


@pytest.mark.parametrize("name, encoding, wanted", MAKERS)
def test_the_kernel_of_a_target(name, encoding, wanted, module_of):
    found = []
    mod = module_of(
        [(2, 5, 7), (2, 7, 9)],
        lambda f, x, y: f.emit(branch_matmul(x, encoding, y, FOUR)),
        "uint8",
    )
    visit_calls(mod, lambda call, _graph: found.append(call))
    target = load_target(name)
    makers = [
        rules.name
        for rules in rule_sets_of(target)
        if any(rule(found[0], target) is not None for rule in rules.rules)
    ]
    assert makers[0] == wanted and makers[-1] == generic.RULES.name


@pytest.mark.parametrize("threads", [1, 2, 64])
@pytest.mark.parametrize(
    "rules, name", [(avx512, "znver5"), (avx2, "x86-64-v3"), (i8mm, "neoverse-n2")]
)
def test_tiles_fit_registers(rules, name, threads):
    isa = rules.isa_of(load_target(name))
    for rows, columns, batch in itertools.product((1, 5, 64, 197), (1, 16, 80, 197), (1, 12)):
        tile = default_tile(MatmulSize(rows, 64, columns), isa, threads, batch)
        assert 1 <= tile.rows <= rows and tile.vectors >= 1
        # Beside all sums, one vector of right codes for each, and one of left codes.
        assert tile.rows * tile.vectors + tile.vectors + 1 <= isa.registers
        assert tile.vectors * isa.vector_bytes // 4 < columns + isa.vector_bytes // 4
        assert tile.parts == 1 or (threads > 1 and rows // tile.parts >= tile.rows)
