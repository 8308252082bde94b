"""Exponential and error function, tanh and sigmoid, of float32: the same bits on every CPU.

Each is a polynomial behind a reduction of its argument (Cody and Waite, *Software Manual for the
Elementary Functions*, 1980). Nothing is looked up and nothing branches, so vectors compute what
scalars do; a C library's function would differ from one system to the next, and takes one number
at a time. Coefficients are those of least relative error in float32.

Largest error, in units of the last place: exp 0.98, erf 1.09, tanh 1.32, sigmoid 2.5. NaN stays
NaN, and infinities give the limits. Below -88.7 sigmoid is 0, though float32 has smaller numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx

from .intrinsic import intrinsic
from .limited import at_least, at_most
from .rounded import rounded

FLOAT, INT = "float32", "int32"
_LN2_HIGH, _LN2_LOW = 0.693147182464599609375, -1.904654323148236e-09
_ROUNDER = 1.5 * 2.0**23  # A sum with it has the nearest integer in its last bits.
_ROUNDER_BITS = 0x4B400000
_BIAS, _MANTISSA_BITS = 127, 23
_EXP_ENDS = -104.0, 89.0  # Beyond, e^x is 0, or infinite.
# (e^r - 1 - r) / r^2 for |r| up to ln 2 / 2.
_EXP = (0.5, 0.16666666, 0.041666295, 0.008333497, 0.001394466, 0.00019790346)
# erf(x) / x - 1 in x^2 up to 0.925, and -ln(1 - erf(x)) in x from there to where erf(x) is 1.
_ERF_SMALL = (
    *(0.12837917, -0.37612632, 0.11283664, -0.026857706),
    *(0.005196952, -0.00080977025, 8.185091e-05),
)
_ERF_LARGE = (
    *(-0.00017468445, 1.1295149, 0.6333469, 0.10828009),
    *(-0.025119428, 0.004171063, -0.00043446262, 2.1095051e-05),
)
_ERF_BETWEEN, _ERF_END = 0.925, 3.95
# (tanh(x) / x - 1) / x^2 in x^2 up to 0.625.
_TANH_SMALL = (-0.3333326, 0.1333083, -0.05368802, 0.02046941, -0.0055151545)
_TANH_BETWEEN = 0.625


def exp(x: tirx.Expr) -> tirx.Expr:
    """Return :math:`e^x = 2^n e^r`, where n is the nearest integer to :math:`x / ln 2`."""
    return _let(x, _exp)


def erf(x: tirx.Expr) -> tirx.Expr:
    """Return the error function, from an odd polynomial near 0 and an exponential beyond."""

    def value(x: tirx.Var) -> tirx.Expr:
        return _let(tirx.abs(x), lambda size: _with_sign(_erf_of_size(size), x))

    return _let(x, value)


def tanh(x: tirx.Expr) -> tirx.Expr:
    """Return the hyperbolic tangent, from an odd polynomial near 0 and an exponential beyond."""

    def value(x: tirx.Var) -> tirx.Expr:
        return _let(tirx.abs(x), lambda size: _with_sign(_tanh_of_size(size), x))

    return _let(x, value)


def sigmoid(x: tirx.Expr) -> tirx.Expr:
    """Return :math:`1 / (1 + e^{-x})`."""
    return _number(1) / (_number(1) + exp(_number(0) - x))


def _exp(x: tirx.Var) -> tirx.Expr:
    low, high = map(_number, _EXP_ENDS)
    return _let(
        at_most(at_least(x, low), high),
        lambda x: _let(
            _fused(x, _number(1.4426950408889634), _number(_ROUNDER)),
            lambda shifted: _power(x, shifted),
        ),
    )


def _power(x: tirx.Var, shifted: tirx.Var) -> tirx.Expr:
    """Return e^x, with :math:`x / ln 2` rounded in the last bits of `shifted`."""
    n = shifted - _number(_ROUNDER)
    rest = _fused(n, _number(-_LN2_LOW), _fused(n, _number(-_LN2_HIGH), x))
    exponent = tirx.reinterpret(INT, shifted) - tirx.const(_ROUNDER_BITS, INT)

    def scaled(rest: tirx.Var) -> tirx.Expr:
        power = _number(1) + _fused(_polynomial(_EXP, rest), rest * rest, rest)
        # In two steps: 2^n itself may be beyond float32, where e^x isn't.
        return _let(
            exponent,
            lambda n: _let(
                n >> 1, lambda half: rounded(power * _two_to(half) * _two_to(n - half)), INT
            ),
            INT,
        )

    return _let(rest, scaled)


def _two_to(n: tirx.Expr) -> tirx.Expr:
    """Return 2^n of an exponent that float32 has."""
    return tirx.reinterpret(FLOAT, (n + tirx.const(_BIAS, INT)) << _MANTISSA_BITS)


def _erf_of_size(x: tirx.Var) -> tirx.Expr:
    small = _let(x * x, lambda square: _fused(_polynomial(_ERF_SMALL, square), x, x))
    large = _let(
        at_most(x, _number(_ERF_END)),
        lambda x: _number(1) - exp(_number(0) - _polynomial(_ERF_LARGE, x)),
    )
    return tirx.Select(x < _number(_ERF_BETWEEN), small, large)


def _tanh_of_size(x: tirx.Var) -> tirx.Expr:
    small = _let(x * x, lambda square: _fused(_polynomial(_TANH_SMALL, square) * square, x, x))
    large = _number(1) - _number(2) / (exp(x + x) + _number(1))
    return tirx.Select(x < _number(_TANH_BETWEEN), small, large)


def _with_sign(size: tirx.Expr, x: tirx.Expr) -> tirx.Expr:
    return intrinsic(FLOAT, "llvm.copysign", size, x)


def _polynomial(coefficients: Sequence[float], x: tirx.Expr) -> tirx.Expr:
    """Horner's rule, each step rounded once."""
    *lower, value = map(_number, coefficients)
    for coefficient in reversed(lower):
        value = _fused(value, x, coefficient)
    return value


def _fused(a: tirx.Expr, b: tirx.Expr, c: tirx.Expr) -> tirx.Expr:
    return intrinsic(FLOAT, "llvm.fma", a, b, c)


def _number(value: float) -> tirx.Expr:
    return tirx.const(value, FLOAT)


def _let(value: tirx.Expr, body: Callable[[tirx.Var], tirx.Expr], dtype: str = FLOAT) -> tirx.Expr:
    """Give a value a name, for it is used more than once."""
    variable = tirx.Var("value", dtype)
    return tirx.Let(variable, value, body(variable))
