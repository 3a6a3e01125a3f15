"""Kernel: one object over the modules of a layer, some of them built when first asked for."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from framed import bundle, kernel, module

from jaccomp.build import compile_module, load_module
from jaccomp.emit.module import emit_module
from jaccomp.errors import UsageError
from jaccomp.numpy_kernel import NumpyKernel
from jaccomp.program import replace
from jaccomp.reference.interpreter import evaluate
from jaccomp.runtime import Kernel

X, G = np.random.default_rng(0).standard_normal((3, 4)), np.ones(4)


def _first() -> ModuleType:
    made = emit_module(bundle("rmsnorm", ("fwd", "bwd"), ("f64",)))
    return load_module("rmsnorm", compile_module(made))


def test_a_kernel_has_the_functions_of_its_module() -> None:
    one = Kernel(_first(), source=lambda: "text")
    np.testing.assert_array_equal(one(X, G, eps=1e-3), module("rmsnorm").forward(X, G, eps=1e-3))
    assert one.forward is one.modules[0].forward
    y, pullback = one.vjp(X, G)
    y_, res = one.fwd(X, G)
    np.testing.assert_array_equal(one.bwd(res, y_)[0], pullback(y)[0])
    assert one.jacobian(X, G, wrt="g").shape == (3, 4, 4)
    assert one.shapes(x=(3, 4)) == {"y": (3, 4), "rstd": (3,)}
    assert one.formulas["y", "x"][2] == "block diagonal"
    assert (one.name, one.spec_hash, one.source, repr(one)) == ("rmsnorm", "0123", "text", "<Kernel rmsnorm>")


def test_what_a_module_lacks_is_built_once_when_first_asked_for() -> None:
    asked: list[str] = []

    def build(name: str) -> ModuleType:
        asked.append(name)
        return module("rmsnorm")

    one = Kernel(_first(), on_demand=build)
    assert asked == []
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: one.jvp((X, G), (X, None))[1], range(8)))
    assert asked == ["jvp"] and len(one.modules) == 2
    for result in results:
        np.testing.assert_array_equal(result, results[0])


def test_what_cannot_be_had_is_an_error_that_says_so() -> None:
    one = Kernel(_first())
    with pytest.raises(UsageError, match="kernel rmsnorm: it was built without jvp"):
        one.jvp((X, G), (X, G))
    with pytest.raises(UsageError, match="kernel rmsnorm: no jvp can be built for it"):
        Kernel(_first(), on_demand=lambda _: _first()).jvp((X, G), (X, G))
    with pytest.raises(UsageError, match="kernel rmsnorm: its source was not kept"):
        _ = one.source
    with pytest.raises(AttributeError, match="a Kernel has no attribute 'grad'; its functions are forward, fwd, vjp"):
        _ = one.grad


def test_importing_the_runtime_imports_neither_sympy_nor_the_compiler() -> None:
    code = "import sys, jaccomp.runtime, jaccomp.arguments\nprint({'sympy', 'Cython', 'jinja2'} & set(sys.modules))"
    root = Path(__file__).parent.parent
    made = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "set()"


def test_the_numpy_kernel_has_the_same_surface() -> None:
    one = kernel("rmsnorm")
    np.testing.assert_allclose(one(X, G), module("rmsnorm").forward(X, G), rtol=1e-12)
    assert one.formulas == dict(module("rmsnorm").FORMULAS)
    assert one.spec_hash == "0123" and repr(one) == "<NumpyKernel rmsnorm>" and one.name == "rmsnorm"
    assert repr(one.vjp(X, G)[1]) == repr(module("rmsnorm").vjp(X, G)[1])


def test_the_numpy_kernel_derives_its_tangents_when_first_asked_for() -> None:
    whole = bundle("rmsnorm", ())
    lacking = replace(whole, programs={role: one for role, one in whole.programs.items() if role != "jvp"})
    with pytest.raises(UsageError, match="kernel rmsnorm: it was built without jvp"):
        NumpyKernel(lacking, evaluate).jvp((X, G), (X, G))
    one = NumpyKernel(lacking, evaluate, rest=lambda: whole)
    np.testing.assert_allclose(one.jvp((X, G), (X, G))[1], module("rmsnorm").jvp((X, G), (X, G))[1], rtol=1e-12)
