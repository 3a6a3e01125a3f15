"""Mutants: the generator is seeded and covers its table, equivalence is proved, and the ladder catches the rest."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import add

import pytest
import sympy as sp

import jaccomp.notation as jc
from jaccomp import layers
from jaccomp.calculus.vjp import jvp, vjp
from jaccomp.layer import Layer
from jaccomp.program import Program, verify
from jaccomp.reference.ladder import cases
from jaccomp.reference.mutants import MUTATIONS, Mutant, Outcome, Which, all_mutants, equivalence, judge, mutants

N, D = jc.size("N D")
n, d, k = jc.index("n", N), jc.index("d", D), jc.index("k", D)
x, y, g = jc.tensor("x", N, D), jc.tensor("y", N, D), jc.tensor("g", D)

SCALED = Layer(
    "scaled", inputs=[x, g], outputs=[y], equations=[sp.Eq(y[n, d], sp.exp(x[n, d]) * g[d] - sp.Sum(x[n, k], k) / D)]
)
JUDGED = ("layernorm", "embedding", "conv1d", "causal_attention", "hardtanh", "maxpool1d", "softmax", "huber", "rope")


def programs(layer: Layer) -> dict[Which, Program]:
    program = layer.program
    return {"forward": program, "backward": vjp(program), "tangent": jvp(program)}


def verdict(layer: Layer, which: Which, count: int, seed: int = 0) -> Outcome:
    known = programs(layer)
    return judge(layer.spec, known, which, mutants(known[which], seed, count), list(cases(layer.spec, seed)))


def test_mutants_are_seeded_different_from_their_program_and_of_every_kind_that_applies() -> None:
    backward = vjp(SCALED.program)
    first, again, other = (mutants(backward, seed, 30) for seed in (1, 1, 2))
    assert first == again and first != other and len(first) == 30
    assert all(m.before != m.after for m in first)
    assert {m.kind for m in first} >= {"sign", "scale", "drop term", "drop part", "shift index", "shift bound"}
    found = {m.kind for name in JUDGED for m in all_mutants(vjp(layers.get(name).program))}
    assert found == set(MUTATIONS)


@pytest.mark.parametrize("kind", MUTATIONS)
def test_every_row_of_the_table_makes_programs_that_say_what_they_changed(kind: str) -> None:
    made = [m for name in JUDGED for m in all_mutants(vjp(layers.get(name).program)) if m.kind == kind]
    assert made
    for mutant in made[:20]:
        assert mutant.description.startswith(f"{mutant.target}: ")
        assert mutant.program.inputs and mutant.program.definition(mutant.target) is not None


@pytest.mark.parametrize("which", ["forward", "backward", "tangent"])
def test_the_ladder_catches_mutants_of_each_of_the_programs(which: Which) -> None:
    outcome = verdict(SCALED, which, 40)
    assert outcome.survivors == (), str(outcome)
    assert len(outcome.caught) >= 20


def test_at_least_95_percent_of_the_mutants_that_differ_are_caught() -> None:
    outcome = reduce(add, (verdict(layers.get(name), "backward", 16, seed=4) for name in JUDGED))
    assert outcome.rate >= 0.95, str(outcome)
    assert len(outcome.caught) >= 8 * len(JUDGED)
    assert all(proof for _, proof in outcome.equivalent)


def _mutant(program: Program, kind: str, words: str) -> Mutant:
    return next(m for m in all_mutants(program) if m.kind == kind and words in m.description)


def test_equivalent_mutants_are_excused_with_a_proof() -> None:
    backward = vjp(SCALED.program)
    swapped = _mutant(backward, "swap indices", "x0[i0, b1] for x0[b0, b1]")
    assert equivalence(backward, swapped, SCALED.spec) == "the terms are equal once their equalities are solved"
    term = next(t for e in backward.equations if e.target == "ct_x0" for t in e.terms if t.domain)
    repeated = replace(term, domain=(*term.domain, term.domain[0]))
    same = Mutant("none", "nothing", backward, "ct_x0", term, repeated)
    assert equivalence(backward, same, SCALED.spec) == "the terms are equal"
    dead = Mutant("none", "nothing", backward, "v0", term, None)
    assert equivalence(backward, dead, SCALED.spec) == "no output needs it"


def test_the_scale_of_an_argmax_is_proved_by_agreement() -> None:
    pooled = layers.get("maxpool1d")
    backward = vjp(pooled.program)
    scaled = _mutant(backward, "scale", "arg_v0")
    proof = equivalence(backward, scaled, pooled.spec)
    assert proof is not None and proof.startswith("both agree at ")


@pytest.mark.parametrize("kind", ["sign", "scale", "drop part", "shift index"])
def test_mutants_that_differ_are_not_excused(kind: str) -> None:
    backward = vjp(SCALED.program)
    for mutant in all_mutants(backward):
        if mutant.kind == kind:
            assert equivalence(backward, mutant, SCALED.spec) is None, mutant.description


def test_a_survivor_is_listed_with_what_was_changed() -> None:
    backward = vjp(SCALED.program)
    wrong = mutants(backward, 0, 3)
    blind = judge(SCALED.spec, programs(SCALED), "backward", wrong, [])
    assert len(blind.survivors) + len(blind.equivalent) == 3 and blind.survivors
    assert f"SURVIVED: [{blind.survivors[0].kind}] {blind.survivors[0].description}" in str(blind)
    assert blind.rate == 0.0 and Outcome((), (), ()).rate == 1.0


def test_the_unchanged_program_is_verified() -> None:
    for name in JUDGED:
        verify(vjp(layers.get(name).program))
