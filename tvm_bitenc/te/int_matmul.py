"""Product of two matrices of codes by integer multiply-accumulate."""

from __future__ import annotations

from tvm import te, tirx

LANES = 16  # Columns are padded to whole vectors,
ROWS = 4  # and rows to tiles, whose sums stay in registers.

Planes = tuple[tuple[int, ...], int]


def _integer(code: tirx.Expr, planes: Planes) -> tirx.Expr:
    """v + o of a code, int16: the widest are those of 8 bits, -510 to 510."""
    coefficients, offset = planes
    wide = tirx.Cast("int16", code)
    if coefficients == tuple(2**m for m in range(len(coefficients))):
        value = wide * tirx.const(2, "int16")
    else:
        bits = ((wide >> tirx.const(m, "int16")) & tirx.const(1, "int16") for m in range(8))
        value = sum(bit * tirx.const(2 * kappa, "int16") for kappa, bit in zip(coefficients, bits))
    return value + tirx.const(offset - sum(coefficients), "int16")


def int_matmul(
    a: te.Tensor, b: te.Tensor, a_planes: Planes, b_planes: Planes, transpose_b: bool = False
) -> te.Tensor:
    """Accumulators, the sum over i of (v_a + o_a)[n, i] (v_b + o_b)[i, o].

    Parameters
    ----------
    a : te.Tensor of uint8, shape (batch, rows, terms)
    b : te.Tensor of uint8, shape (batch, terms, columns), or (batch, columns, terms)
    a_planes, b_planes : (coefficients, offset)
        Of the planes of each, as in `Encoding`.
    transpose_b : bool
        Whether b is of the second shape.

    Returns
    -------
    te.Tensor of int32, shape (batch, rows, columns)
    """
    batch, rows, terms = a.shape
    columns = b.shape[1 if transpose_b else 2]
    padded = [(size + tile - 1) // tile * tile for size, tile in ((rows, ROWS), (columns, LANES))]
    zero = tirx.const(0, "int16")
    left = te.compute(
        (batch, padded[0], terms),
        lambda n, row, i: tirx.if_then_else(row < rows, _integer(a[n, row, i], a_planes), zero),
        name="left",
    )

    def right_integer(n: tirx.Var, i: tirx.Var, o: tirx.Var) -> tirx.Expr:
        code = b[n, o, i] if transpose_b else b[n, i, o]
        return tirx.if_then_else(o < columns, _integer(code, b_planes), zero)

    right = te.compute((batch, terms, padded[1]), right_integer, name="right")
    term = te.reduce_axis((0, terms), "term")

    def product(n: tirx.Var, row: tirx.Var, o: tirx.Var) -> tirx.Expr:
        factors = (left[n, row, term], right[n, term, o])
        return te.sum(tirx.Cast("int32", factors[0]) * tirx.Cast("int32", factors[1]), axis=term)

    sums = te.compute((batch, *padded), product, name="sums")
    return te.compute((batch, rows, columns), lambda *i: sums(*i), name="branch_matmul")
