"""Products of two matrices of codes: the tile that the kernel of vector instructions gets."""

from __future__ import annotations

from tvm import relax, tirx

from ..kernel.isa import Isa
from ..kernel.kernel import Kernel
from ..kernel.matmul.byte_form import fits_bytes, signed_form, unsigned_form
from ..kernel.matmul.nest import matmul_kernel
from ..kernel.matmul.size import MatmulSize, MatmulTile
from ..kernel.neon import Neon
from ..op.matmul import branch_matmul_op, transposes_b
from ..op.registration import is_call_to
from ..target import Target
from ..te.function import sizes_of
from .parallel import TASKS_PER_THREAD, threads_for

MAX_VECTORS, MAX_ROWS = 4, 12
MIN_ROWS = 32  # Of a part: each lays all right codes out for itself.


def branch_matmul(
    call: relax.Call, target: Target, isa: Isa, _family: object = None
) -> Kernel | None:
    """Return the kernel of such a product, None where it takes a more general rule."""
    if not is_call_to(call, branch_matmul_op) or not _has_products(isa):
        return None
    batch, rows, terms = sizes_of(call.args[0].ty.shape, tirx.Var("batch", "int32"))
    size = MatmulSize(rows, terms, int(call.ty.shape[2]), transposes_b(call))
    (act, act_offset), (weight, weight_offset) = (
        ([int(k) for k in call.attrs[f"{side}_coefficients"]], int(call.attrs[f"{side}_offset"]))
        for side in ("act", "weight")
    )
    if not (fits_bytes(act) and fits_bytes(weight) and rows * terms * size.columns):
        return None
    forms = unsigned_form(act, act_offset, isa.most_code), signed_form(weight, weight_offset)
    known = sizes_of(call.ty.shape, 1)[0]
    threads = threads_for(known * rows * terms * size.columns, target)
    tile = default_tile(size, isa, threads, known)
    return matmul_kernel(size, batch, forms, isa, tile, threads > 1)


def default_tile(size: MatmulSize, isa: Isa, threads: int, batch: int) -> MatmulTile:
    """Tile sizes that keep all sums in registers, beside codes of either side.

    Parameters
    ----------
    size : MatmulSize
    isa : Isa
    threads : int
        Threads to make work for.
    batch : int
        Fewest products that there are.
    """
    lanes, sums = isa.vector_bytes // 4, isa.registers * 3 // 4
    vectors = -(-size.columns // lanes)
    blocks = -(-vectors // min(MAX_VECTORS, sums // 4))
    vectors = -(-vectors // blocks)
    most = min(sums // vectors, MAX_ROWS, size.rows)
    rows = max(r for r in range(1, most + 1) if size.rows % r == 0)
    rows = rows if 3 * rows >= 2 * most else most
    wanted = -(-threads * TASKS_PER_THREAD // batch) if threads > 1 else 1
    return MatmulTile(rows, vectors, max(min(wanted, size.rows // MIN_ROWS, size.rows // rows), 1))


def _has_products(isa: Isa) -> bool:
    """Whether its products of bytes beat the 16-bit ones that LLVM finds: on NEON just some do."""
    return isa.has_dot or not isinstance(isa, Neon)
