"""The same bytes in any process: under any hash seed, after any other work, from operands in another order."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest
import sympy as sp

import jaccomp as jc
from jaccomp.bundling import module_source
from jaccomp.layers import get

SEEDS = tuple(str(seed) for seed in (*range(19), 4294967295))
LAYERS = ("softmax", "layernorm", "causal_attention", "lstm_cell")
DIGESTS = f"""
import hashlib
from jaccomp.bundling import module_source
from jaccomp.layers import get
for name in {LAYERS!r}:
    made = module_source(get(name), "main", ("f64",))
    print(name, hashlib.sha256(repr(made.files()).encode()).hexdigest())
"""


def digests(seed: str, code: str = DIGESTS) -> str:
    environment = os.environ | {"PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def expected() -> str:
    return digests("0")


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_bytes_under_every_hash_seed_and_no_warning(seed: str, expected: str) -> None:
    assert digests(seed) == expected and expected.count("\n") == len(LAYERS)


def test_the_same_bytes_after_other_layers_were_built(expected: str) -> None:
    before = (
        "from jaccomp.layers import get\nfor n in ('gru_cell', 'softmin', 'rope', 'mse'): get(n).jvp().derivation\n"
    )
    backwards = DIGESTS.replace(f"{LAYERS!r}", f"{LAYERS[::-1]!r}")
    assert sorted(digests("1", before + backwards).splitlines()) == sorted(expected.splitlines())


def layernorm(swapped: bool) -> jc.Layer:
    """The same equations, with the operands of sums and products, and names in declarations, in another order."""
    if swapped:
        D, N = jc.size("D", typical=1024), jc.size("N", typical=4096)
        k, i, n = jc.index("k", D), jc.index("i", D), jc.index("n", N)
        bias, g, x = (*jc.tensor("bias g", D), jc.tensor("x", N, D))
    else:
        N, D = jc.size("N", typical=4096), jc.size("D", typical=1024)
        n, i, k = jc.index("n", N), jc.index("i", D), jc.index("k", D)
        x, (g, bias) = jc.tensor("x", N, D), jc.tensor("g bias", D)
    y, xhat = jc.tensor("y xhat", N, D)
    mean, rstd = jc.tensor("mean rstd", N)
    eps = jc.scalar("eps", default=1e-5)
    variance = sp.Sum((x[n, k] - mean[n]) ** 2, k)
    inverse = sp.Rational(-1, 2)
    equations = [
        sp.Eq(mean[n], (1 / D) * sp.Sum(x[n, k], k) if swapped else sp.Sum(x[n, k], k) / D),
        sp.Eq(rstd[n], (eps + variance / D) ** inverse if swapped else (variance / D + eps) ** inverse),
        sp.Eq(xhat[n, i], rstd[n] * (-mean[n] + x[n, i]) if swapped else (x[n, i] - mean[n]) * rstd[n]),
        sp.Eq(y[n, i], bias[i] + xhat[n, i] * g[i] if swapped else g[i] * xhat[n, i] + bias[i]),
    ]
    return jc.Layer("layernorm", inputs=[x, g, bias], scalars=[eps], outputs=[y], equations=equations)


def test_the_order_of_operands_and_declarations_is_not_seen() -> None:
    one, other = (module_source(layernorm(swapped), "main", ("f32", "f64")) for swapped in (False, True))
    assert one.files() == other.files()


@pytest.mark.parametrize("name", LAYERS)
def test_twice_in_one_process(name: str) -> None:
    digest = [
        hashlib.sha256(module_source(jc.Layer.of_spec(get(name).spec), "main", ("f64",)).pyx.encode()).hexdigest()
        for _ in range(2)
    ]
    assert digest[0] == digest[1]
