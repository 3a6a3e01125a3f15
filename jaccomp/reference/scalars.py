"""Scalar functions over NumPy arrays: float32, float64, complex128 for complex step, and objects of mpmath.

Written apart from the C header and from the table of derivatives, so that an error in either meets a second opinion.

A complex array here is a real one with an infinitesimal imaginary part. Hence the functions that are not holomorphic
branch on the real part and carry the imaginary one along (`Abs(z) = sign(re z) z`; NumPy's complex `abs` drops the
derivative), comparisons look at real parts, and the conventions at kinks are those of section "conventions" of the
documentation: `|x|'(0) = 0`, half each for `Max(a, b)` at a tie, a constant wins against what is not one.

The transcendental functions are NumPy's, SciPy's (`erf`) and mpmath's; `log1p`, `expm1`, `sigmoid` and
`softplus` in complex arithmetic are written out, because NumPy's lose a small imaginary part or overflow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import scipy.special
import sympy as sp

from jaccomp.calculus import functions as fn

COMPLEX_STEP = 2.0**-500  # its square is far below any value, and x + i step loses no digit of either
Array = np.ndarray[Any, np.dtype[Any]]
Function = Callable[[Array], Array]


def is_object(z: Array) -> bool:
    return z.dtype == np.dtype(object)


def _elementwise(function: Callable[..., Any]) -> Callable[..., Array]:
    """`function` of mpmath numbers as one of object arrays, rank 0 included."""

    def apply(*args: Array) -> Array:
        return np.asarray(np.frompyfunc(function, len(args), 1)(*args), dtype=object)

    return apply


def _real_part(z: Any) -> Any:
    return z.real if isinstance(z, mpmath.mpc) else z


def real(z: Array) -> Array:
    """The real parts: what conditions and comparisons look at."""
    if is_object(z):
        return _elementwise(_real_part)(z)
    return z.real


def complex_step(dtype: np.dtype[Any]) -> Any:
    """The infinitesimal of a dtype: a float, or an `mpf` at mpmath's current precision."""
    return mpmath.mpf(10) ** (-20 * mpmath.mp.dps) if dtype == np.dtype(object) else COMPLEX_STEP


def perturbed(values: Array, direction: Array) -> Array:
    """`values + i step direction`, complex128 or objects of `mpc`; plain where the direction is 0."""
    if is_object(values):
        step = complex_step(values.dtype)
        return _elementwise(lambda v, d: mpmath.mpc(v, step * d) if d else v)(values, direction)
    return np.asarray(values + 1j * (COMPLEX_STEP * direction))


def derivative(values: Array) -> Array:
    """The derivative that `perturbed` values carry."""
    values = np.asarray(values)
    if is_object(values):
        step = complex_step(values.dtype)
        return _elementwise(lambda v: v.imag / step if isinstance(v, mpmath.mpc) else mpmath.mpf(0))(values)
    return np.asarray(values.imag / COMPLEX_STEP)


def constant(value: sp.Expr, dtype: np.dtype[Any]) -> Array:
    """A number of SymPy's (rational, pi, E, oo, an expression of those) as an array of rank 0, correctly rounded.

    Object arrays get an `mpf` at mpmath's current precision.
    """
    if value is sp.S.Infinity or value is sp.S.NegativeInfinity:
        infinity = mpmath.inf if dtype == np.dtype(object) else np.inf
        return number(infinity if value is sp.S.Infinity else -infinity, dtype)
    if value is sp.S.NaN or value is sp.S.ComplexInfinity:
        return number(mpmath.nan if dtype == np.dtype(object) else np.nan, dtype)
    if isinstance(value, sp.Rational):
        if dtype == np.dtype(object):
            return number(mpmath.mpf(int(value.p)) / int(value.q), dtype)
        return number(int(value.p) / int(value.q), dtype)
    if dtype == np.dtype(object):
        return number(mpmath.mpf(str(value.evalf(mpmath.mp.dps + 10))), dtype)
    return number(float(value.evalf(30)), dtype)


def number(value: Any, dtype: np.dtype[Any]) -> Array:
    """A Python or mpmath number as an array of rank 0 of `dtype`."""
    if dtype == np.dtype(object):
        out = np.empty((), dtype=object)
        out[()] = value if isinstance(value, mpmath.mpf | mpmath.mpc) else mpmath.mpf(value)
        return out
    return np.asarray(value, dtype=dtype)


def convert(values: Any, dtype: np.dtype[Any]) -> Array:
    """`values` as an array of `dtype`; numbers become `mpf` where that is `object`."""
    if dtype != np.dtype(object):
        return np.asarray(values).astype(dtype, copy=False)
    array = np.asarray(values)
    if array.dtype == np.dtype(object):
        return array
    return _elementwise(lambda v: mpmath.mpf(float(v)) if not isinstance(v, int) else mpmath.mpf(v))(
        array.astype(object)
    )


def absolute(z: Array) -> Array:
    """`|z|` with derivative 0 at 0."""
    return np.asarray(z * sign(z) if np.iscomplexobj(z) or is_object(z) else np.abs(z))


def sign(z: Array) -> Array:
    if is_object(z):
        return _elementwise(lambda v: mpmath.sign(_real_part(v)))(z)
    return np.asarray(np.sign(z.real), dtype=z.dtype)


def step(z: Array) -> Array:
    """1 where z > 0, else 0."""
    return convert(_positive(z), z.dtype)


def half_step(z: Array) -> Array:
    """1 where z > 0, 1/2 at 0, else 0."""
    return np.asarray((step(z) + 1 - step(np.asarray(-z))) / 2)


def _positive(z: Array) -> Array:
    return np.asarray(real(z) > 0, dtype=np.int64)


def floor(z: Array) -> Array:
    if is_object(z):
        return _elementwise(lambda v: mpmath.floor(_real_part(v)))(z)
    return np.asarray(np.floor(z.real), dtype=z.dtype)


def ceiling(z: Array) -> Array:
    return np.asarray(-floor(np.asarray(-z)))


def finite(z: Array) -> Array:
    """z, and 0 where it is infinite."""
    infinite = (real(z) == np.inf) | (real(z) == -np.inf)
    return np.where(np.asarray(infinite, dtype=bool), number(0, z.dtype), z)


def exp(z: Array) -> Array:
    """e^z; an imaginary part of zero stays zero where the real one overflows."""
    if np.iscomplexobj(z):
        scale = np.exp(z.real)
        return _complex(scale * np.cos(z.imag), np.where(z.imag == 0, 0.0, scale * np.sin(z.imag)))
    return np.exp(z)


def log(z: Array) -> Array:
    """The real logarithm: nan where the real part is negative."""
    if np.iscomplexobj(z):
        return np.where(z.real < 0, np.nan, np.log(z))
    return np.log(z)


def _mp_log(z: Any) -> Any:
    if mpmath.isnan(z) or _real_part(z) < 0:
        return mpmath.nan
    return mpmath.log(z) if z != 0 else -mpmath.inf


def log1p(z: Array) -> Array:
    if np.iscomplexobj(z):
        shifted = 1 + z.real
        size = np.log1p(z.real) + 0.5 * np.log1p((z.imag / shifted) ** 2)
        return np.where(shifted < 0, np.nan, _complex(size, np.arctan2(z.imag, shifted)))
    return np.log1p(z)


def expm1(z: Array) -> Array:
    if np.iscomplexobj(z):
        half = np.sin(z.imag / 2)
        return _complex(np.expm1(z.real) * np.cos(z.imag) - 2 * half * half, exp(z).imag)
    return np.expm1(z)


def _complex(re: Array, im: Array) -> Array:
    """`re + i im` without the multiplication, which makes nan of an infinite part."""
    out = np.empty(np.broadcast_shapes(np.shape(re), np.shape(im)), dtype=np.complex128)
    out.real, out.imag = re, im
    return out


def sigmoid(z: Array) -> Array:
    """`1/(1 + e^-z)`, by `e^z/(1 + e^z)` where z < 0, so that neither side overflows."""
    one = number(1, z.dtype)
    small = APPLY_EXP(np.where(_negative(z), z, -z))
    return np.asarray(np.where(_negative(z), small, one) / (one + small))


def softplus(z: Array) -> Array:
    """`log(1 + e^z) = max(z, 0) + log(1 + e^-|z|)`."""
    small = APPLY_EXP(np.where(_negative(z), z, -z))
    tail = _mp_unary(mpmath.log1p)(small) if is_object(z) else log1p(small)
    return tail + np.where(_negative(z), number(0, z.dtype), z)


def _negative(z: Array) -> Array:
    return np.asarray(real(z) < 0, dtype=bool)


def inverse_root(z: Array) -> Array:
    """`z^(-1/2)`, and 0 at 0."""
    zero = np.asarray(real(z) == 0, dtype=bool)
    one = number(1, z.dtype)
    return np.where(zero, number(0, z.dtype), one / square_root(np.where(zero, one, z)))


def square_root(z: Array) -> Array:
    """The real root: nan where the real part is negative."""
    if is_object(z):
        return _elementwise(lambda v: mpmath.nan if _real_part(v) < 0 else mpmath.sqrt(v))(z)
    if np.iscomplexobj(z):
        return np.where(z.real < 0, np.nan, np.sqrt(z))
    return np.sqrt(z)


def arctan2(a: Array, b: Array) -> Array:
    """The angle of the point (b, a); its infinitesimal part is that of `(b da - a db)/(a² + b²)`."""
    if is_object(a) or is_object(b):
        return _elementwise(_mp_atan2)(a, b)
    if np.iscomplexobj(a) or np.iscomplexobj(b):
        a, b = np.asarray(a, np.complex128), np.asarray(b, np.complex128)
        turned = (a * b.real - b * a.real).imag / (a.real * a.real + b.real * b.real)
        return _complex(np.arctan2(a.real, b.real), turned)
    return np.arctan2(a, b)


def _mp_atan2(a: Any, b: Any) -> Any:
    if isinstance(a, mpmath.mpc) or isinstance(b, mpmath.mpc):
        a, b = mpmath.mpc(a), mpmath.mpc(b)
        turned = (a.imag * b.real - b.imag * a.real) / (a.real**2 + b.real**2)
        return mpmath.mpc(mpmath.atan2(a.real, b.real), turned)
    return mpmath.atan2(a, b)


def power(base: Array, exponent: Array) -> Array:
    """`base ** exponent` for real numbers, any sign of an integer exponent; whole exponents by multiplication."""
    if is_object(base) or is_object(exponent):
        return _elementwise(_mp_power)(base, exponent)
    if not (np.iscomplexobj(base) or np.iscomplexobj(exponent)):
        return np.power(base, exponent)
    base, exponent = np.asarray(base, np.complex128), np.asarray(exponent, np.complex128)
    value = np.power(base.real, exponent.real)
    slope = exponent.real * np.power(base.real, exponent.real - 1)
    grown = np.where(exponent.imag == 0, 0.0, value * np.log(base.real) * exponent.imag)
    return _complex(value, np.where(base.imag == 0, 0.0, slope * base.imag) + grown)


def _mp_power(base: Any, exponent: Any) -> Any:
    if exponent == 0:
        return mpmath.mpf(1)
    whole = not isinstance(exponent, mpmath.mpc) and mpmath.isint(exponent)
    if base == 0 and not whole:
        return mpmath.mpf(0) if _real_part(exponent) > 0 else mpmath.inf
    if whole:
        return mpmath.inf if base == 0 and exponent < 0 else base ** int(exponent)
    return mpmath.nan if _real_part(base) < 0 else mpmath.power(base, exponent)


def whole_power(base: Array, exponent: int) -> Array:
    """`base ** exponent` for an integer, by multiplication, and one division if it is negative."""
    if exponent < 0:
        inverse = whole_power(base, -exponent)
        if is_object(base):
            return _elementwise(lambda v: mpmath.inf if v == 0 else 1 / v)(inverse)
        return np.asarray(number(1, base.dtype) / inverse)
    if not is_object(base) and not np.iscomplexobj(base):
        return np.power(base, exponent)
    result, factor = number(1, base.dtype), base
    while exponent:
        if exponent & 1:
            result = result * factor
        exponent >>= 1
        if exponent:
            factor = factor * factor
    return np.asarray(result)


def larger(a: Array, b: Array, constant_wins: bool = False) -> Array:
    """`Max(a, b)` by real parts; at a tie the mean, or `b` if it is a constant. A nan of either is the result."""
    tie = b if constant_wins else (a + b) / number(2, np.result_type(a, b))
    ra, rb = real(a), real(b)
    chosen = np.where(np.asarray(ra > rb, dtype=bool), a, np.where(np.asarray(rb > ra, dtype=bool), b, tie))
    tied = np.asarray(ra == rb, dtype=bool)
    # Infinite ties: their mean is nan in complex arithmetic, and they carry no derivative.
    chosen = np.where(tied & np.asarray(abs(ra) == np.inf, dtype=bool), b, chosen)
    nan = np.asarray(ra != ra, dtype=bool) | np.asarray(rb != rb, dtype=bool)
    return np.where(nan, a + b, chosen)


def smaller(a: Array, b: Array, constant_wins: bool = False) -> Array:
    return np.asarray(-larger(np.asarray(-a), np.asarray(-b), constant_wins))


def _mp_unary(function: Callable[[Any], Any]) -> Function:
    return _elementwise(lambda v: mpmath.nan if mpmath.isnan(v) else function(v))


def _limits(function: Callable[[Any], Any], low: Any, high: Any) -> Callable[[Any], Any]:
    """`function`, with its limits at -inf and +inf, which mpmath's complex functions do not all know."""

    def apply(v: Any) -> Any:
        part = _real_part(v)
        return low if part == -mpmath.inf else high if part == mpmath.inf else function(v)

    return apply


def _inside(function: Callable[[Any], Any], low: Any, high: Any) -> Callable[[Any], Any]:
    """`function` on [low, high], nan elsewhere: a real function, where mpmath would turn complex."""
    return lambda v: function(v) if low <= _real_part(v) <= high else mpmath.nan


def _carried(function: Callable[[Any], Any], rise: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`function` of an `mpf`; of an `mpc`, `function(re) + i im rise(re)`.

    For the functions whose complex form in mpmath is accurate as a vector only and loses an infinitesimal part.
    """

    def apply(v: Any) -> Any:
        if not isinstance(v, mpmath.mpc):
            return function(v)
        return mpmath.mpc(function(v.real), v.imag * rise(v.real))

    return apply


def _mp_gauss(x: Any) -> Any:
    """What erf is the integral of."""
    return 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-x * x)


def _mp_arc(x: Any) -> Any:
    return 1 / mpmath.sqrt((1 - x) * (1 + x))


def _pair(of_numpy: Function, of_mpmath: Callable[[Any], Any]) -> Function:
    exact = _mp_unary(of_mpmath)
    return lambda z: exact(z) if is_object(z) else of_numpy(z)


APPLY_EXP: Function = _pair(exp, _limits(mpmath.exp, mpmath.mpf(0), mpmath.inf))

_ONE = mpmath.mpf(1)
_TANH = _limits(_carried(mpmath.tanh, lambda x: mpmath.sech(x) ** 2), -_ONE, _ONE)
_ERF = _limits(_carried(mpmath.erf, _mp_gauss), -_ONE, _ONE)
_ERFC = _limits(_carried(mpmath.erfc, lambda x: -_mp_gauss(x)), 2 * _ONE, 0 * _ONE)

UNARY: dict[type, Function] = {
    sp.exp: APPLY_EXP,
    sp.log: _pair(log, _mp_log),
    sp.sin: _pair(np.sin, mpmath.sin),
    sp.cos: _pair(np.cos, mpmath.cos),
    sp.tan: _pair(np.tan, mpmath.tan),
    sp.asin: _pair(np.arcsin, _inside(_carried(mpmath.asin, _mp_arc), -1, 1)),
    sp.acos: _pair(np.arccos, _inside(_carried(mpmath.acos, lambda x: -_mp_arc(x)), -1, 1)),
    sp.atan: _pair(np.arctan, _carried(mpmath.atan, lambda x: 1 / (1 + x * x))),
    sp.sinh: _pair(np.sinh, _limits(mpmath.sinh, -mpmath.inf, mpmath.inf)),
    sp.cosh: _pair(np.cosh, _limits(mpmath.cosh, mpmath.inf, mpmath.inf)),
    sp.tanh: _pair(
        np.tanh, _limits(_carried(mpmath.tanh, lambda x: mpmath.sech(x) ** 2), mpmath.mpf(-1), mpmath.mpf(1))
    ),
    sp.asinh: _pair(np.arcsinh, _limits(mpmath.asinh, -mpmath.inf, mpmath.inf)),
    sp.acosh: _pair(np.arccosh, _limits(_inside(mpmath.acosh, 1, mpmath.inf), mpmath.nan, mpmath.inf)),
    sp.atanh: _pair(np.arctanh, _inside(mpmath.atanh, -1, 1)),
    sp.erf: _pair(scipy.special.erf, _ERF),
    sp.erfc: _pair(
        scipy.special.erfc, _limits(_carried(mpmath.erfc, lambda x: -_mp_gauss(x)), mpmath.mpf(2), mpmath.mpf(0))
    ),
    sp.Abs: absolute,
    sp.sign: sign,
    sp.floor: floor,
    sp.ceiling: ceiling,
    fn.Sigmoid: sigmoid,
    fn.Softplus: softplus,
    fn.Log1p: _pair(log1p, lambda v: mpmath.nan if _real_part(v) < -1 else mpmath.log1p(v)),
    fn.Expm1: _pair(expm1, _limits(_carried(mpmath.expm1, mpmath.exp), mpmath.mpf(-1), mpmath.inf)),
    fn.Step: step,
    fn.HalfStep: half_step,
    fn.InverseRoot: inverse_root,
    fn.Finite: finite,
}
