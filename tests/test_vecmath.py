"""The vector-math header, compiled with the shipped flags and called in loops, against arithmetic of 180 bits."""

from __future__ import annotations

import ctypes
import functools
import math
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest

from jaccomp.build import Flags

HEADER = Path(__file__).resolve().parent.parent / "templates" / "jaccomp.h"
X86 = platform.machine() in ("x86_64", "AMD64")
TARGETS = ("native", "x86-64-v3", "baseline") if X86 else ("native", "baseline")
TYPES: dict[str, Any] = {"f32": np.float32, "f64": np.float64}
C_TYPES: dict[str, Any] = {"f32": "float", "f64": "double"}
Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="the header is tested with gcc, which is not here")
mp = mpmath.mp.clone()
mp.prec = 180


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the header: its definition, the interval it is sampled on, its bounds in ulp; inline or not; of
    numbers or of vectors.
    """

    name: str
    exact: Callable[[Any], Any]
    low: float = -math.inf
    high: float = math.inf
    f32: float = 2.0
    f64: float = 2.0
    inline: bool = True
    of: str = "number"


FUNCTIONS = (
    Function("exp", mp.exp, f32=1.0, f64=1.0),
    Function("each_exp", mp.exp, f32=1.0, f64=1.0, inline=False, of="vector"),
    Function("expm1", mp.expm1, f32=1.5, f64=2.25),
    Function("tanh", mp.tanh),
    Function("sigmoid", lambda x: 1 / (1 + mp.exp(-x))),
    Function("log", mp.log, low=5e-324, f32=1.25, f64=1.0),
    Function("log1p", mp.log1p, low=math.nextafter(-1, 0), f32=1.75, f64=1.0),
    Function("softplus", lambda x: mp.log1p(mp.exp(x))),
    Function("log_sigmoid", lambda x: -mp.log1p(mp.exp(-x))),
    Function("erf", mp.erf, f32=1.5, f64=1.25),
    Function("sqrt", mp.sqrt, low=0.0, f32=0.51, f64=0.51),
    Function("rsqrt", lambda x: 1 / mp.sqrt(x), low=5e-324),
    Function("sin", mp.sin, inline=False),
    Function("cos", mp.cos, inline=False),
    Function("tan", mp.tan, inline=False),
    Function("asin", mp.asin, low=-1.0, high=1.0, inline=False),
    Function("acos", mp.acos, low=-1.0, high=1.0, inline=False),
    Function("atan", mp.atan, inline=False),
    Function("sinh", mp.sinh, f64=4.0, inline=False),
    Function("cosh", mp.cosh, f64=4.0, inline=False),
    Function("asinh", mp.asinh, f64=4.0, inline=False),
    Function("acosh", mp.acosh, low=1.0, f64=4.0, inline=False),
    Function("atanh", mp.atanh, low=math.nextafter(-1, 0), high=math.nextafter(1, 0), f64=4.0, inline=False),
    Function("erfc", mp.erfc, f64=4.0, inline=False),
    Function("lgamma", mp.loggamma, low=5e-324, f64=4.0, inline=False),
)
INLINE = tuple(function.name for function in FUNCTIONS if function.inline)
PLAIN = ("abs", "floor", "ceil", "sign", "step", "half_step", "rsqrt0")
BINARY = ("max", "min", "atan2", "pow")
PHRASES = {  # loops of several functions, as layers write them
    "silu": "x[i] * jc_sigmoid_{s}(x[i])",
    "both_sides": "jc_sigmoid_{s}(x[i]) * jc_sigmoid_{s}(-x[i])",
    "there_and_back": "jc_log_{s}(jc_exp_{s}(x[i]) * jc_exp_{s}(-x[i])) + jc_exp_{s}(x[i]) * jc_exp_{s}(-x[i]) - 1",
}


def over_vectors(name: str, s: str, *arrays: str) -> str:
    """A loop over whole vectors and the part at the end."""
    loaded = ", ".join(f"jc_load_part_{s}({array} + i, k)" for array in arrays)
    return (
        f"for (ptrdiff_t i = 0, k; i < n; i += k) {{ k = n - i < JC_LANES_{s} ? n - i : JC_LANES_{s}; "
        f"jc_store_part_{s}(y + i, jc_{name}_{s}({loaded}), k); }}"
    )


def source() -> str:
    """One exported function a line: a loop over arrays for each function and type, and the integer helpers."""
    lines = [
        '#include "jaccomp.h"',
        '#include "jaccomp_lanes.h"',
        '#define OUT __attribute__((visibility("default"))) void',
    ]
    for s, t in C_TYPES.items():
        head = f"({t} *restrict y, const {t} *restrict x, "
        loop = "ptrdiff_t n) {{ for (ptrdiff_t i = 0; i < n; ++i) y[i] = {}; }}"
        for name in (function.name for function in FUNCTIONS if function.of == "vector"):
            lines.append(f"OUT {name}_{s}{head}ptrdiff_t n) {{ {over_vectors(name, s, 'x')} }}")
        for name in ("each_max", "each_min"):
            body = over_vectors(name, s, "x", "z")
            lines.append(f"OUT {name}_{s}{head}const {t} *restrict z, ptrdiff_t n) {{ {body} }}")
        for name in (*(function.name for function in FUNCTIONS if function.of == "number"), *PLAIN):
            lines.append(f"OUT {name}_{s}{head}{loop.format(f'jc_{name}_{s}(x[i])')}")
        for name, phrase in PHRASES.items():
            lines.append(f"OUT {name}_{s}{head}{loop.format(phrase.format(s=s))}")
        for name in BINARY:
            lines.append(f"OUT {name}_{s}{head}const {t} *restrict z, {loop.format(f'jc_{name}_{s}(x[i], z[i])')}")
        lines.append(f"OUT stream_{s}{head}ptrdiff_t n) {{ jc_stream_{s}(y, x, n); jc_stream_fence(); }}")
        lines.append(f"OUT copy_{s}{head}ptrdiff_t n) {{ jc_copy_{s}(y, x, NULL, n, 4); jc_stream_fence(); }}")
        lines.append(
            f"OUT copy_past_{s}{head}ptrdiff_t n) {{ jc_copy_{s}(y, x, x + 1, n, 1 << 22); jc_stream_fence(); }}"
        )
        lines.append(f"OUT fill_{s}({t} *y, ptrdiff_t n, double value) {{ jc_fill_{s}(y, n, value); }}")
    for name in ("floordiv", "ceildiv", "mod", "min", "max"):
        lines.append(f"OUT int_{name}(ptrdiff_t *y, ptrdiff_t a, ptrdiff_t b) {{ *y = jc_{name}(a, b); }}")
    return "\n".join(lines) + "\n"


def gcc(folder: Path, *words: str, text: str | None = None) -> str:
    """What gcc says of the source, in `folder`; an error fails the test."""
    (folder / "loops.c").write_text(source() if text is None else text)
    line = ("gcc", *words, f"-I{HEADER.parent}", "loops.c", "-lm")
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def runs_here(target: str) -> bool:
    """Whether this CPU has what the target asks for."""
    if target != "x86-64-v3":
        return True
    words = set(Path("/proc/cpuinfo").read_text().split()) if Path("/proc/cpuinfo").exists() else set()
    return {"avx2", "fma", "bmi2"} <= words


@pytest.fixture(scope="module", params=TARGETS)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if not runs_here(request.param):
        pytest.skip("this CPU lacks AVX2 or FMA")
    folder = tmp_path_factory.mktemp(f"vecmath_{request.param}")
    gcc(folder, *Flags(request.param).words(), "-o", "loops.so")
    return ctypes.CDLL(str(folder / "loops.so"))


def call(library: ctypes.CDLL, name: str, *arrays: Array) -> Array:
    """The loop `name` over one or two arrays of a type."""
    kind = next(kind for kind, dtype in TYPES.items() if arrays[0].dtype == dtype)
    out = np.empty_like(arrays[0])
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (out, *arrays)]
    getattr(library, f"{name}_{kind}")(*pointers, ctypes.c_ssize_t(out.size))
    return out


def samples(low: float, high: float, dtype: Any) -> Array:
    """Values of [low, high]: on every scale, dense near 0 and ±1, the subnormals and the edges of overflow."""
    rng, info = np.random.default_rng(7), np.finfo(dtype)
    smallest, largest = math.log2(info.smallest_subnormal), math.log2(info.max)
    reach = 1.1 * largest * math.log(2)  # beyond where exp overflows
    scales = rng.choice((-1.0, 1.0), 1000) * 2.0 ** rng.uniform(smallest, 6, 1000)
    beside_one = rng.choice((-1.0, 1.0), 300) * (1 + rng.choice((-1.0, 1.0), 300) * 2.0 ** rng.uniform(-54, 0, 300))
    parts = [rng.uniform(-a, a, 800) for a in (0.6, 1.2, 5.0, 30.0, reach)] + [scales, beside_one]
    if math.isfinite(low):  # a logarithm, a root: up to the largest
        parts += [2.0 ** rng.uniform(smallest, largest, 1000), info.max / np.array([1, 1.3, 1.6, 2, 2.5, 3, 4])]
    edges = [0.0, info.smallest_subnormal, info.tiny, np.nextafter(info.tiny, dtype(0)), info.eps, 0.5, 1.0, 2.0]
    parts += [np.array(edges), -np.array(edges)]
    x = np.concatenate([part.astype(dtype) for part in parts])
    wide = x.astype(np.float64)  # 5e-324 is no float32
    return x[(wide >= low) & (wide <= high)]


@dataclass(frozen=True, slots=True)
class Exact:
    """Results to more than their type holds: the nearest double, what it lacks in ulp, log2 of that ulp."""

    near: Array
    rest: Array
    ulp: Array

    def error(self, y: Array) -> Array:
        """|y - exact| in ulp; infinite where y is not finite and should be, or the reverse."""
        with np.errstate(invalid="ignore", over="ignore"):
            off = np.abs(np.ldexp(y.astype(np.float64) - self.near, -self.ulp) - self.rest)
        return np.where(np.isfinite(self.near) & np.isfinite(y), off, np.where(y == self.near, 0.0, np.inf))


def exact(value: Callable[[Any], Any], x: Array) -> Exact:
    bits, least = (24, -149) if x.dtype == np.float32 else (53, -1074)
    overflow = mp.mpf(2) ** (128 if bits == 24 else 1024) * (1 - mp.mpf(2) ** -(bits + 1))
    near, rest, ulp = [], [], []
    for item in x.tolist():
        y = value(mp.mpf(item))
        exponent = max(mp.frexp(y)[1] - bits, least)
        close = float(y) if abs(y) < overflow else math.copysign(math.inf, y)
        near.append(close)
        rest.append(float(mp.ldexp(y - close, -exponent)) if math.isfinite(close) else 0.0)
        ulp.append(exponent)
    return Exact(np.array(near), np.array(rest), np.array(ulp))


@functools.cache
def reference(function: Function, kind: str) -> tuple[Array, Exact]:
    x = samples(function.low, function.high, TYPES[kind])
    return x, exact(function.exact, x)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_the_error_is_within_its_bound(library: ctypes.CDLL, function: Function, kind: str) -> None:
    x, expected = reference(function, kind)
    assert x.size > 1500
    y = call(library, function.name, x)
    error = expected.error(y)
    worst = int(np.argmax(error))
    assert error[worst] <= getattr(function, kind), f"{function.name}({x[worst]!r}) = {y[worst]!r}: {error[worst]} ulp"


INF, NAN = math.inf, math.nan
EDGES: dict[str, dict[float, float]] = {
    "exp": {-INF: 0, INF: INF, 0: 1, -1e30: 0, 1e30: INF},
    "each_exp": {-INF: 0, INF: INF, 0: 1, -800: 0, 800: INF, -1e30: 0, 1e30: INF, -3e38: 0, 3e38: INF},
    "expm1": {-INF: -1, INF: INF, 0: 0, -1e30: -1, 1e30: INF},
    "tanh": {-INF: -1, INF: 1, 0: 0, -1e30: -1, 1e30: 1, 30: 1},
    "sigmoid": {-INF: 0, INF: 1, 0: 0.5, -1e30: 0, 1e30: 1},
    "log": {INF: INF, 0: -INF, 1: 0, -1: NAN, -INF: NAN, -1e-40: NAN},
    "log1p": {INF: INF, 0: 0, -1: -INF, -2: NAN, -INF: NAN, -1e30: NAN},
    "softplus": {-INF: 0, INF: INF, -1e30: 0, 2.0**99: 2.0**99},
    "log_sigmoid": {-INF: -INF, INF: 0, 1e30: 0, -(2.0**99): -(2.0**99)},
    "erf": {-INF: -1, INF: 1, 0: 0, -1e30: -1, 1e30: 1, 30: 1},
    "sqrt": {INF: INF, 0: 0, -1: NAN},
    "rsqrt": {INF: 0, 0: INF, -1: NAN},
    "rsqrt0": {INF: 0, 0: 0, -1: 0, 4: 0.5, -INF: 0},
    "abs": {-INF: INF, -2: 2, 0: 0},
    "sign": {-INF: -1, -3: -1, 0: 0, 1e-40: 1, INF: 1},
    "floor": {-1.5: -2, 2.5: 2, -INF: -INF},
    "ceil": {-1.5: -1, 2.5: 3, INF: INF},
    "sin": {INF: NAN, 0: 0},
    "lgamma": {1: 0, 2: 0, 0: INF, INF: INF},
}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", EDGES)
def test_edges_and_nan(library: ctypes.CDLL, name: str, kind: str) -> None:
    rows = EDGES[name] | {NAN: NAN}
    x, expected = (np.array(list(values), TYPES[kind]) for values in (rows.keys(), rows.values()))
    for times in (1, 13):  # the remainder of a vectorised loop, and its body
        np.testing.assert_array_equal(call(library, name, np.tile(x, times)), np.tile(expected, times))


@pytest.mark.parametrize("kind", TYPES)
def test_steps_are_zero_at_nan(library: ctypes.CDLL, kind: str) -> None:
    x = np.array([-INF, -1, -1e-40, 0, 1e-40, 1, INF, NAN] * 5, TYPES[kind])
    np.testing.assert_array_equal(call(library, "step", x), np.where(x > 0, 1, 0))
    np.testing.assert_array_equal(call(library, "half_step", x), np.where(x > 0, 1, np.where(x == 0, 0.5, 0)))


@pytest.mark.parametrize("kind", TYPES)
def test_max_and_min_are_those_of_numpy(library: ctypes.CDLL, kind: str) -> None:
    values = np.array([-INF, -1, 0, 1e-40, 2, INF, NAN], TYPES[kind])
    a, b = (np.ascontiguousarray(part.ravel()) for part in np.meshgrid(values, values))
    np.testing.assert_array_equal(call(library, "max", a, b), np.maximum(a, b))
    np.testing.assert_array_equal(call(library, "min", a, b), np.minimum(a, b))
    np.testing.assert_array_equal(call(library, "each_max", a, b), np.maximum(a, b))
    np.testing.assert_array_equal(call(library, "each_min", a, b), np.minimum(a, b))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("name", "value"), [("atan2", mp.atan2), ("pow", mp.power)])
def test_functions_of_two(library: ctypes.CDLL, name: str, value: Callable[[Any, Any], Any], kind: str) -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.uniform(low, 9, 400).astype(TYPES[kind]) for low in (0.01 if name == "pow" else -9, -9))
    partner = iter(b.tolist())
    error = exact(lambda x: value(x, mp.mpf(next(partner))), a).error(call(library, name, a, b))
    assert error.max() <= 2


@pytest.mark.parametrize("kind", TYPES)
def test_subnormal_results_are_gradual(library: ctypes.CDLL, kind: str) -> None:
    info = np.finfo(TYPES[kind])
    x = np.log(np.float64(info.smallest_subnormal)) + np.linspace(0.5, 12, 200)
    for name in ("exp", "each_exp"):
        y = call(library, name, x.astype(TYPES[kind]))
        assert (y > 0).all() and (np.diff(y) >= 0).all() and y[0] < info.tiny * 1e-3
    assert (call(library, "sigmoid", x.astype(TYPES[kind])) > 0).all()


@pytest.mark.parametrize("kind", TYPES)
def test_functions_hold_where_they_meet_in_one_loop(library: ctypes.CDLL, kind: str) -> None:
    x = samples(-20, 20, TYPES[kind])
    error = exact(lambda v: v / (1 + mp.exp(-v)), x).error(call(library, "silu", x))
    assert error.max() <= 3
    error = exact(lambda v: 1 / (2 + mp.exp(v) + mp.exp(-v)), x).error(call(library, "both_sides", x))
    assert error.max() <= 5
    wide = samples(-80, 80, TYPES[kind])
    assert np.abs(call(library, "there_and_back", wide)).max() <= 8 * np.finfo(TYPES[kind]).eps


def test_integers_divide_as_in_python(library: ctypes.CDLL) -> None:
    out = ctypes.c_ssize_t()

    def integer(name: str, a: int, b: int) -> int:
        getattr(library, f"int_{name}")(ctypes.byref(out), ctypes.c_ssize_t(a), ctypes.c_ssize_t(b))
        return out.value

    large = (2**62, -(2**62))
    for a in (*range(-13, 14), *large):
        for b in (*range(-5, 0), *range(1, 6), *large):
            assert integer("floordiv", a, b) == a // b
            assert integer("ceildiv", a, b) == -(-a // b)
            assert integer("mod", a, b) == a % b
            assert (integer("min", a, b), integer("max", a, b)) == (min(a, b), max(a, b))


@pytest.mark.parametrize("name", ["stream", "copy", "copy_past"])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("offset", [0, 1, 5])
def test_streaming_copies_exactly_the_line(library: ctypes.CDLL, name: str, kind: str, offset: int) -> None:
    for n in (0, 1, 3, 16, 31, 200, 777):
        source_line, out = np.arange(n, dtype=TYPES[kind]) + 1, np.zeros(n + 40, TYPES[kind])
        target = out[offset : offset + n]
        pointers = (ctypes.c_void_p(array.ctypes.data) for array in (target, source_line))
        getattr(library, f"{name}_{kind}")(*pointers, ctypes.c_ssize_t(n))
        np.testing.assert_array_equal(target, source_line)
        assert np.count_nonzero(out) == n


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("offset", [0, 1, 5])
@pytest.mark.parametrize("value", [0.0, -np.inf])
def test_filling_sets_exactly_the_run(library: ctypes.CDLL, kind: str, offset: int, value: float) -> None:
    streamed = (1 << 22) // np.dtype(TYPES[kind]).itemsize
    for n in (0, 1, 31, 200, streamed - 1, streamed, streamed + 77):
        out = np.ones(n + 40, TYPES[kind])
        target = out[offset : offset + n]
        fill = getattr(library, f"fill_{kind}")
        fill(ctypes.c_void_p(target.ctypes.data), ctypes.c_ssize_t(n), ctypes.c_double(value))
        assert np.all(target == value)
        assert np.count_nonzero(out == 1) == 40


def test_loading_leaves_subnormals_alive(library: ctypes.CDLL) -> None:
    code = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print(float(sys.argv[2]) / 4 > 0)"
    line = (sys.executable, "-c", code, library._name, "2.2250738585072014e-308")
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout == "True\n"


@pytest.mark.skipif(not X86, reason="what is vectorised is known for x86 only")
@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
def test_the_inline_functions_vectorise(target: str, tmp_path: Path) -> None:
    report = gcc(tmp_path, *Flags(target).words(), "-fopt-info-vec-optimized", "-o", "loops.so")
    numbers = {int(number) for number in re.findall(r"loops\.c:(\d+):.*loop vectorized", report)}
    lines = source().splitlines()
    vectorised = {match[1] for number in numbers if (match := re.match(r"OUT (\w+)\(", lines[number - 1]))}
    wanted = {f"{name}_{kind}" for name in (*INLINE, *PLAIN, "max", "min", *PHRASES) for kind in TYPES}
    assert wanted <= vectorised, sorted(wanted - vectorised)


@pytest.mark.skipif(not X86, reason="counts the divisions of x86")
def test_both_sides_of_a_sigmoid_share_their_exponential(tmp_path: Path) -> None:
    lines = source().splitlines()

    def divisions(name: str) -> int:
        loop = next(line for line in lines if line.startswith(f"OUT {name}_f32("))
        gcc(tmp_path, *Flags().words(), "-fno-tree-vectorize", "-S", "-o", "loop.s", text="\n".join((*lines[:3], loop)))
        return len(re.findall(r"\bv?divss\b", (tmp_path / "loop.s").read_text()))

    assert divisions("sigmoid") == divisions("both_sides") == 1


@pytest.mark.parametrize("target", TARGETS)
def test_the_header_compiles_without_a_warning(target: str, tmp_path: Path) -> None:
    flags = [word for word in Flags(target).words() if word != "-w" and not word.startswith("-std")]
    for standard in ("-std=c11", "-std=gnu11", "-std=gnu17"):
        warnings = ("-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror", standard)
        gcc(tmp_path, *flags, *warnings, "-o", "loops.so", text='#include "jaccomp.h"\n')
