"""The module as a thing: its text, what it imports, what it says of itself, and the plain data it is spelled from."""

from __future__ import annotations

import ast
import inspect
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy as sp
from framed import MAKERS, bundle, kernel, module, programs

from jaccomp.binding import Apply, Name, Whole, text, value
from jaccomp.build import compile_into
from jaccomp.emit.access_checks import corners, scans
from jaccomp.emit.bundle import Bundle
from jaccomp.emit.docs import literal
from jaccomp.emit.module import emit_module, header
from jaccomp.emit.signature import extent, required, signature, solutions
from jaccomp.emit.tables import c_string, tables
from jaccomp.errors import StageError
from jaccomp.program import Tensor, replace

ROOT = Path(__file__).parent.parent


# -- the text


def test_the_same_bytes_under_any_hash_seed() -> None:
    code = (
        "import hashlib\nfrom framed import MAKERS, bundle\nfrom jaccomp.emit.module import emit_module\n"
        "for name in MAKERS:\n    print(hashlib.sha256(emit_module(bundle(name)).pyx.encode()).hexdigest())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(told) == 1 and len(told.pop().split()) == len(MAKERS)


@pytest.mark.parametrize(
    "nasty",
    [
        'ends in "',
        'triple """ quotes',
        "back\\slash \\n \\x41",
        "line\nbreak",
        "nul \0 bell \a",
        "bidi \u202e",
        "*/ #include",
        "λ Σ ∂",
    ],
)
def test_texts_are_escaped(nasty: str) -> None:
    assert ast.literal_eval(literal(nasty)) == nasty
    assert all(char.isprintable() or char == "\n" for char in literal(nasty))
    spelled = c_string(nasty)
    assert spelled.isascii() and "\n" not in spelled and "?" not in spelled
    assert ast.literal_eval("b" + spelled).decode() == nasty


def test_texts_of_the_layer_reach_the_module_unharmed(tmp_path: Path) -> None:
    nasty = 'end """ \\" \\\n# distutils: libraries = m\n%s {x} */ \t\0 "'
    source = emit_module(
        replace(bundle("total", ("forward",), ("f64",)), name="nasty", layer='to\ntal"', doc=nasty, spec_hash=nasty)
    )
    compile_into(source, tmp_path)
    told = _run_plain(
        tmp_path,
        "import nasty\nprint(ascii([nasty.SPEC_HASH, nasty.__doc__, nasty.forward.__doc__]))\n"
        "try: nasty.forward([[1.0]])\nexcept ValueError as error: print(ascii(str(error)))",
    )
    (spec_hash, doc, of_forward), error = map(ast.literal_eval, told.splitlines())
    assert spec_hash == nasty
    assert nasty.replace("\0", "\ufffd") in doc and nasty.replace("\0", "\ufffd") in of_forward
    assert error.startswith('to\ntal"(x): x is (1, 1), 2 axes')


def test_the_frame_compiles_without_warnings(tmp_path: Path) -> None:
    """All warnings on, for the frame alone: what Cython writes around it is not ours."""
    from jaccomp.build.attempt import include_directories

    view = tables(bundle("window"), signature(bundle("window")))
    lines = [
        "#include <Python.h>",
        *(f"#define {name} {spelled}" for name, spelled in view.macros),
        '#include "jaccomp.h"',
    ]
    lines += ['static const char *const jc_name = "window";', 'static const char *const jc_call_text = "window(x)";']
    lines += [f"static {one.declaration} = {{ {', '.join(one.rows)} }};" for one in view.arrays if one.rows]
    lines += ["static jc_wide jc_compute(int which, const Py_ssize_t *v, int *bad) { switch (which) {"]
    lines += [f"case {k}: return {spelled};" for k, (_, spelled) in enumerate(view.expressions)]
    lines += ["} *bad = 1; return 0; }", "int use(PyObject *a, PyObject *b) { (void)jc_name; return jc_frame(a, b); }"]
    (tmp_path / "jaccomp.h").write_text(header(), encoding="utf-8")
    (tmp_path / "frame.c").write_text("\n".join(lines), encoding="utf-8")
    words = [
        "gcc",
        "-std=gnu11",
        "-O2",
        "-fopenmp",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unused-function",
        "-Wno-unused-variable",
        "-fPIC",
        "-c",
    ]
    includes = [f"-isystem{one}" for one in include_directories()]
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    made = subprocess.run([*words, *includes, "-I.", "frame.c"], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


# -- the module


def _run_plain(folder: Path, code: str, **environment: str) -> str:
    """Run code where NumPy and SciPy can be imported, and neither jaccomp nor SymPy."""
    guard = (
        "import sys\nclass Guard:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('jaccomp', 'sympy', 'Cython', 'jinja2'):\n"
        "            raise ImportError('forbidden: ' + name)\nsys.meta_path.insert(0, Guard())\n"
    )
    made = subprocess.run(
        [sys.executable, "-W", "error", "-c", guard + code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert made.returncode == 0, made.stderr
    return made.stdout


def test_a_module_needs_only_numpy_and_scipy_where_it_multiplies_matrices(tmp_path: Path) -> None:
    compile_into(emit_module(bundle("rmsnorm")), tmp_path)
    compile_into(emit_module(bundle("linear")), tmp_path)
    told = _run_plain(
        tmp_path,
        "import time, numpy as np\nstart = time.perf_counter()\nimport rmsnorm, linear\n"
        "print(time.perf_counter() - start)\n"
        "x, g = np.ones((2, 3)), np.ones(3)\ny, pullback = rmsnorm.vjp(x, g)\npullback(y)\n"
        "rmsnorm.jvp((x, g), (x, g))\n"
        "print([name for name in sys.modules if name.startswith('scipy')])\n"
        "print(linear.forward(x, np.ones((4, 3)))[0, 0], 'scipy.linalg.cython_blas' in sys.modules)\n"
        "import pickle\nprint(pickle.loads(pickle.dumps(rmsnorm.fwd(x, g)[1])).rstd.shape)",
    ).splitlines()
    assert float(told[0]) < 0.03
    assert told[1:] == ["[]", "3.0 True", "(2,)"]


def test_without_scipy_a_matrix_product_says_what_to_install(tmp_path: Path) -> None:
    compile_into(emit_module(bundle("linear")), tmp_path)
    told = _run_plain(
        tmp_path,
        "import numpy as np, linear\nsys.modules['scipy'] = None\n"
        "try: linear.forward(np.ones((2, 3)), np.ones((4, 3)))\nexcept ImportError as error: print(error)",
    )
    assert told.startswith(
        "linear: its matrix products need SciPy's BLAS, scipy.linalg.cython_blas, which cannot be loaded: "
    )
    assert told.rstrip().endswith("Install SciPy.")


def test_blas_threads_are_as_before() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    linear, x, W = module("linear"), np.ones((64, 64)), np.ones((64, 64))
    linear.forward(x, W)
    before = [one["num_threads"] for one in threadpoolctl.threadpool_info()]
    for _ in range(3):
        linear.vjp(x, W)[1](x)
    assert [one["num_threads"] for one in threadpoolctl.threadpool_info()] == before


def test_threads_default_to_openmp_and_never_change_the_bits() -> None:
    x, g = np.random.default_rng(0).standard_normal((2, 300, 64)).astype(np.float32)[0], np.ones(64, np.float32)
    y, pullback = module("rmsnorm").vjp(x, g)
    for threads in (1, 2, 3, 64):
        again, pull = module("rmsnorm").vjp(x, g, threads=threads)
        np.testing.assert_array_equal(again, y)
        for one, other in zip(pull(y), pullback(y, threads=5), strict=True):
            np.testing.assert_array_equal(one, other)


def test_kernels_run_without_the_gil() -> None:
    """With switches by time put off, another thread can only run during the call if the call lets go."""
    x, g = np.ones((4000, 1000)), np.ones(1000)
    started, finished = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        module("rmsnorm").forward(x, g, threads=1)
        finished.set()

    before = sys.getswitchinterval()
    sys.setswitchinterval(30)
    try:
        worker = threading.Thread(target=work)
        worker.start()
        started.wait()
        assert not finished.is_set()
        worker.join()
    finally:
        sys.setswitchinterval(before)


CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads where Linux lists them")
@pytest.mark.parametrize(
    ("variable", "argument", "more"), [("1", "None", 0), ("64", "None", CPUS - 1), ("3", "2", 1), ("1", "4", 3)]
)
def test_threads_follow_openmp_and_the_cpus_unless_the_call_says(
    tmp_path: Path, variable: str, argument: str, more: int
) -> None:
    compile_into(emit_module(bundle("rmsnorm", ("fwd", "bwd"), ("f64",))), tmp_path)
    code = (
        "import os, numpy as np, rmsnorm\nx, g = np.ones((2000, 400)), np.ones(400)\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        f"rmsnorm.forward(x, g, threads={argument})\nprint(len(os.listdir('/proc/self/task')) - before)"
    )
    assert _run_plain(tmp_path, code, OMP_NUM_THREADS=variable).strip() == str(more)


def test_the_module_says_what_it_computes() -> None:
    rmsnorm = module("rmsnorm")
    assert rmsnorm.FORMULAS["y", "x"] == ('δ(n,m) "quoted" \\ rstd[n]', r"\delta_{nm}", "block diagonal")
    assert rmsnorm.SPEC_HASH == "0123"
    assert "ms[n] = Σ_d x[n,d]² / D" in rmsnorm.__doc__ and 'Root-mean-square \\ "norm".' in rmsnorm.__doc__
    for name in ("forward", "fwd", "vjp", "bwd", "jvp", "jacobian", "shapes", "release_memory"):
        assert getattr(rmsnorm, name).__name__ == name
    assert "x: (N, D), float32 or float64" in rmsnorm.forward.__doc__ and "Raises:" in rmsnorm.forward.__doc__
    assert str(inspect.signature(rmsnorm.forward)) == "(x, g, *, eps=1e-06, out=None, threads=None)"
    assert str(inspect.signature(rmsnorm.vjp)) == "(x, g, *, eps=1e-06, wrt=None, out=None, threads=None)"
    assert list(inspect.signature(rmsnorm.bwd).parameters) == ["res", "dy", "wrt", "eps", "out", "threads"]
    assert str(inspect.signature(module("repeat").forward)) == "(x, *, c, K, out=None, threads=None)"
    assert str(inspect.signature(rmsnorm.jvp)) == "(primals, tangents, /, *, eps=1e-06, threads=None)"
    assert repr(rmsnorm.vjp(np.ones((1, 1)), np.ones(1))[1]) == "<pullback of rmsnorm(x, g)>"


def test_a_module_has_the_functions_that_it_has_kernels_for() -> None:
    from jaccomp.build import compile_module, load_module

    only = load_module(
        "rms", compile_module(emit_module(replace(bundle("rmsnorm", ("jvp",), ("f32",)), name="rms", layer="rmsnorm")))
    )
    assert {"jvp", "jacobian", "shapes", "release_memory"} == {
        name for name in dir(only) if callable(getattr(only, name)) and name[0].islower()
    }
    x, g = np.ones((2, 3), np.float32), np.ones(3, np.float32)
    np.testing.assert_allclose(
        only.jacobian(x, g, wrt="g"), module("rmsnorm").jacobian(x, g, wrt="g"), rtol=1e-5, atol=1e-6
    )
    with pytest.raises(TypeError) as caught:
        only.jvp((x.astype(float), g), (None, None))
    assert str(caught.value) == (
        "rmsnorm(x, g): x is float64, but this module was built for float32 alone. Convert it: x.astype(np.float32)."
    )


def test_in_place_is_allowed_where_the_bundle_says_so() -> None:
    from jaccomp.build import compile_module, load_module

    forward = programs("void")["forward"]
    pair = ((forward.outputs[0], forward.inputs[0]),)
    made = emit_module(replace(bundle("void"), name="inplace", inplace=pair))
    void = load_module("inplace", compile_module(made))
    x = np.arange(4.0)
    assert void.forward(x, np.ones(4), out=x) is x
    np.testing.assert_array_equal(x, [1, 3, 5, 7])
    big = np.arange(5.0)
    with pytest.raises(ValueError, match="out for bint overlaps double in memory"):
        void.forward(big[:4], np.ones(4), out=big[1:])
    with pytest.raises(ValueError, match="out for bint overlaps restrict in memory"):
        void.forward(np.ones(4), x, out=x)
    with pytest.raises(ValueError, match="out for bint overlaps double in memory"):
        void.vjp(x, np.ones(4), out=x)


def test_a_bundle_that_does_not_fit_together_is_a_stage_error() -> None:
    with pytest.raises(StageError, match="it has no kernel"):
        emit_module(bundle("total", ()))
    clash = replace(
        programs("total")["forward"], labels=replace(programs("total")["forward"].labels, names={"x0": "N", "s0": "N"})
    )
    with pytest.raises(StageError, match="an input, a scalar and a size go by the same name"):
        emit_module(Bundle("clash", {"forward": clash}, {("forward", "f64"): ""}))
    labels = replace(clash.labels, names={"x0": "x", clash.outputs[0]: "x"})
    with pytest.raises(StageError, match="two of its arrays go by the same name"):
        emit_module(Bundle("twice", {"forward": replace(clash, labels=labels)}, {("forward", "f64"): ""}))
    many = replace(clash, sizes=tuple(sp.Symbol(f"s{k}", integer=True, nonnegative=True) for k in range(64)))
    with pytest.raises(StageError, match="64 sizes, but a module holds at most 63"):
        emit_module(Bundle("many", {"forward": many}, {("forward", "f64"): ""}))


# -- plain data


H, K, S, P = sp.symbols("H K S P", integer=True)


@pytest.mark.parametrize(
    ("expr", "spelled", "at"),
    [
        (2 * H, "2*H", 14),
        ((H + 2 * P - K) // S + 1, "(H + 2*P - K)//S + 1", 3),
        (sp.ceiling((H - K) / S), "ceil((H - K)/S)", 3),
        (sp.floor((K - H) / S), "(K - H)//S", -3),
        (sp.Mod(-H, S), "-H % S", 1),
        (sp.Max(0, H - K), "max(0, H - K)", 5),
        (sp.Min(H, S * K), "min(H, K*S)", 4),
        (H * (H + 1) / 2, "(H*H + H)//2", 28),
        (sp.floor(H / 2 + sp.Rational(1, 3)), "(3*H + 2)//6", 3),
        (H**2 - 3, "H*H - 3", 46),
        (sp.Integer(-2), "-2", -2),
        (-H + K, "K - H", -5),
        (2 * ((H + 1) // 3), "2*((H + 1)//3)", 4),
    ],
)  # fmt: skip
def test_extents_are_plain_data_that_computes_as_python_does(expr: sp.Expr, spelled: str, at: int) -> None:
    values = {"H": 7, "K": 2, "S": 2, "P": 0}
    plain = extent(sp.sympify(expr), str)
    assert (
        value(plain, values)
        == at
        == int(sp.sympify(expr).subs({sp.Symbol(k, integer=True): v for k, v in values.items()}))
    )
    assert text(plain).replace(" ", "") == spelled.replace(" ", "")


def test_an_extent_of_another_function_is_refused() -> None:
    with pytest.raises(StageError, match="is not made of sums, products, floor, ceiling, Mod, Max and Min"):
        extent(sp.sin(H), str)


def test_what_shapes_determine() -> None:
    found = solutions([2 * H + K, H // 2, H], [H, K], str)
    assert [(one.size, text(one.factor), text(one.rest)) for one in found] == [("H", "2", "K"), ("K", "1", "2*H")]
    assert found[0].extent == Apply("add", (Apply("mul", (Whole(2), Name("H"))), Name("K")))


def test_accesses_are_proved_or_checked() -> None:
    for name in ("rmsnorm", "scaled", "halves", "total", "repeat", "rowmax", "void", "linear"):
        for program in programs(name).values():
            assert corners(program) == () and (scans(program) == () or name == "rowmax"), name
    (corner,) = corners(programs("window")["forward"])
    label = bundle("window").label
    assert (text(extent(corner.low, label)), text(extent(corner.extent, label))) != ("0", "0")
    assert corner.axis == 0 and len(corner.ranges) == 2
    (scan,) = scans(programs("embedding")["forward"])
    assert (scan.ids, scan.axis, scan.computed) == ("x0", 0, False)
    (scan,) = scans(programs("onehot")["forward"])
    assert scan.ids == "x1"


@pytest.mark.parametrize("name", MAKERS)
def test_both_backends_say_the_same_of_shapes(name: str) -> None:
    given: dict[str, Any] = {
        "rmsnorm": {"x": (3, 4)}, "scaled": {"x": (2, 3, 4)}, "halves": {"x": (3, 9)}, "total": {"x": (3,)},
        "repeat": {"K": 3}, "window": {"x": (9,), "w": (2,), "shift": 0}, "embedding": {"ids": (3, 2), "table": (4, 5)},
        "onehot": {"x": (3, 4)}, "rowmax": {"x": (3, 4)}, "void": {"double": (3,)},
        "linear": {"x": (3, 4), "W": (5, 4)},
    }[name]  # fmt: skip
    assert module(name).shapes(**given) == kernel(name).shapes(**given)


def test_a_required_size_is_asked_for_once_if_it_determines_another() -> None:
    G, J, N = (sp.Symbol(name, integer=True, nonnegative=True) for name in "GJN")
    assert required([Tensor("x", (N, G * J))], (N, G, J)) == ("G",)
    assert required([Tensor("x", (N, G * J)), Tensor("w", (J,))], (N, G, J)) == ()
    assert required([Tensor("x", (N,))], (N, G, J)) == ("G", "J")
