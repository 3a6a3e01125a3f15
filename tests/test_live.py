"""What a page evaluates: the inputs that a seed gives, and forward and every block of them, as NumPy computes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from javascript import ENCODE, decoded, needs_node, run
from library_formulas import CASES
from test_javascript import same

from jaccomp.emit.live import Live, text
from jaccomp.errors import UsageError
from jaccomp.layers import get
from jaccomp.live import live
from jaccomp.reference.interpreter import evaluate
from jaccomp.reference.sampling import COMFORTABLE, extents

SEED = 7
CALL = """
const results = layers.map((layer) => {
  const value = (list) => Object.fromEntries(list.map((one) => [one.id, one.value]));
  const [sizes, scalars] = [value(layer.sizes), value(layer.scalars)];
  const inputs = layer.draw(SEED, sizes, scalars);
  const shapes = layer.inputs.map((one) => [one.id, one.shape(sizes, scalars)]);
  const blocks = layer.blocks.map((one) => one.shape(sizes, scalars));
  const found = [layer.forward, ...layer.blocks].map((one) => one.evaluate(inputs, sizes, scalars));
  return [Object.entries(inputs).map(([k, v]) => [k, encode(v)]), shapes, blocks, found.map((one) =>
    Object.entries(one).map(([k, { shape, data }]) => [k, shape, encode(data)]))];
});
console.log(JSON.stringify(results));
"""


@cache
def lives() -> dict[str, Live]:
    return {name: live(get(name)) for name in CASES}


def uniforms(seed: int) -> Iterator[float]:
    """mulberry32, written from its recurrence."""
    mask, state = 0xFFFFFFFF, seed & 0xFFFFFFFF
    while True:
        state = (state + 0x6D2B79F5) & mask
        mixed = ((state ^ (state >> 15)) * (state | 1)) & mask
        mixed ^= (mixed + (((mixed ^ (mixed >> 7)) * (mixed | 61)) & mask)) & mask
        yield ((mixed ^ (mixed >> 14)) & mask) / 2**32


def drawn(kind: str, position: int, count: int, seed: int, below: int) -> list[float]:
    stream = uniforms(seed + 0x9E3779B1 * (position + 1))
    bell = (sum(next(stream) for _ in range(12)) - 6 for _ in range(count))
    if kind == "whole":
        return [float(int(next(stream) * below)) for _ in range(count)]
    if kind == "unit":
        return [0.05 + 0.9 * next(stream) for _ in range(count)]
    return [0.25 + abs(z) if kind == "positive" else z for z in bell]


@needs_node
def test_a_page_evaluates_what_numpy_does(tmp_path: Path) -> None:
    """Every layer at the sizes that its page opens with."""
    scripts = ",\n".join(one.script for one in lives().values())
    found = run(f"const SEED = {SEED};\n{ENCODE}\nconst layers = [\n{scripts}\n];\n{CALL}", tmp_path)
    for (name, one), (inputs, shapes, blocks, results) in zip(lives().items(), found, strict=True):
        program, label = one.forward, one.forward.labels.name
        sizes = {s.name: one.sample.sizes[label(s.name)] for s in program.sizes}
        scalars = {s.name: one.sample.scalars[label(s.name)] for s in program.scalars}
        arrays: dict[str, Any] = {}
        for k, (key, values) in enumerate(inputs):
            shape = extents(program.tensor(key).shape, {**sizes, **scalars})
            stops = dict(one.stops).get(key, ())
            below = min(extents(stops, {**sizes, **scalars}), default=3)
            kind = one.sample.kinds.get(label(key), "whole")
            arrays[key] = np.array(drawn(kind, k, int(np.prod(shape)), SEED, below)).reshape(shape)
            assert shapes[k] == [key, list(shape)]
            np.testing.assert_array_equal(decoded(values), arrays[key].ravel(), f"{name} {key}")
        for p, result in zip((program, *(b.program for b in one.blocks)), results, strict=True):
            expected = evaluate(p, arrays, sizes, scalars)
            assert all(np.isfinite(v).all() for v in (expected[o] for o in p.outputs)), name
            same({k: decoded(v).reshape(s) for k, s, v in result}, expected, f"{name} {p.name}")
        for block, shape in zip(one.blocks, blocks, strict=True):
            assert shape == list(extents(block.program.tensor(block.program.outputs[0]).shape, {**sizes, **scalars}))
            assert np.prod(shape, dtype=int) <= COMFORTABLE


def test_a_page_opens_where_there_is_something_to_see() -> None:
    for name, one in lives().items():
        for tensor in (*get(name).spec.inputs, *get(name).spec.outputs):
            assert all(length > 1 for length in extents(tensor.shape, {**one.sample.sizes, **one.sample.scalars})), name


def test_labels_are_json_that_ends_no_script() -> None:
    evil = "</script><!-- & \u2028 \" '"
    assert json.loads(text(evil)) == evil and text(evil).isascii()
    assert not set("<>&") & set(text(evil))


def test_the_same_layer_gives_the_same_script() -> None:
    assert live(get("attention")).script == lives()["attention"].script


def test_a_layer_that_was_derived_has_no_page() -> None:
    with pytest.raises(UsageError, match="it was derived, not written"):
        live(get("softmax").vjp())
