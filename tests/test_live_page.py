"""The live part of a page in a headless browser: what it computes, what it says, what its keys do, what cannot run."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from javascript import decoded
from test_live import drawn

from jaccomp.emit.live import Live
from jaccomp.emit.templates import template_directory
from jaccomp.layers import get
from jaccomp.live import live
from jaccomp.program import Labels
from jaccomp.reference.interpreter import evaluate
from jaccomp.reference.sampling import extents

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on the path")

EVIL = "</script><img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
LIVE = {name: live(get(name)) for name in ("softmax", "cross_entropy", "maxpool1d")}
SCENES = """
const look = (c) => ({
  head: c.querySelector("select").selectedOptions[0].textContent,
  summary: c.querySelector(".jc-live-summary").textContent,
  entry: c.querySelector(".jc-live-entry").textContent,
  problem: c.querySelector(".jc-live-problem").hidden ? null : c.querySelector(".jc-live-problem").textContent,
  hidden: c.querySelector(".jc-live-figure").hidden,
  sizes: c.jaccomp.sizes, shape: c.jaccomp.shape, seed: c.jaccomp.seed, at: c.jaccomp.at,
  values: Array.from(c.jaccomp.values, String),
});
const set = (c, label, value) => {
  const field = [...c.querySelectorAll("label")].find((one) => one.textContent === label).control;
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
};
const press = (c, key, more = {}) =>
  c.querySelector(".jc-live-map").dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, ...more }));
const [softmax, loss, pool, evil] = document.querySelectorAll(".here");
const scenes = { open: look(softmax), loss: look(loss), pool: look(pool), evil: look(evil) };
softmax.querySelector(".jc-live-map").focus();
scenes.focused = look(softmax);
press(softmax, "ArrowRight"); press(softmax, "ArrowDown"); press(softmax, "ArrowDown");
scenes.moved = look(softmax);
press(softmax, "End", { ctrlKey: true }); press(softmax, "ArrowRight");
scenes.end = look(softmax);
softmax.querySelector("button").click();
scenes.again = look(softmax);
set(softmax, "D", "64"); set(softmax, "N", "5");
scenes.large = look(softmax);
set(softmax, "N", "2.5");
scenes.broken = look(softmax);
set(softmax, "N", "1"); set(softmax, "D", "2");
scenes.small = look(softmax);
const write = (c, k, text) => {
  const field = c.querySelectorAll("textarea")[k];
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
};
write(softmax, 0, "0, 1000");
scenes.written = look(softmax);
write(softmax, 0, "0 1 2");
scenes.many = look(softmax);
write(softmax, 0, "0 one");
scenes.word = look(softmax);
write(loss, 1, "0 1 5");
scenes.outside = look(loss);
write(loss, 1, "0 1 4");
scenes.inside = look(loss);
set(softmax, "N", "0");
scenes.empty = look(softmax);
set(loss, "C", "0");
scenes.nowhere = look(loss);
const controls = [...document.querySelectorAll(".jc-live input, .jc-live select, .jc-live textarea")];
const bare = controls.filter((one) => one.labels.length !== 1);
const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
scenes.page = { bare: bare.length, ids: ids.length - new Set(ids).size, images: document.images.length,
  title: document.title };
const out = document.createElement("pre");
out.id = "scenes";
out.textContent = JSON.stringify(scenes);
document.body.append(out);
"""


def page(layers: list[Live]) -> str:
    style, script = (
        (template_directory() / "gallery" / name).read_text(encoding="utf-8") for name in ("live.css", "live.js")
    )
    here = "document.currentScript.previousElementSibling"
    mounts = [f"<div class=here></div><script>jaccompLive.mount({here}, {one.script});</script>" for one in layers]
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>live</title><style>{style}</style>"
    return "\n".join([head, f"<script>{script}</script>", *mounts, f"<script>{SCENES}</script>"])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("live")
    plain = LIVE["softmax"]
    labels = Labels(dict.fromkeys(plain.forward.labels.names, EVIL))
    block = replace(plain.blocks[0], of=EVIL, wrt=EVIL)
    sample = replace(plain.sample, sizes={EVIL: 3}, kinds={EVIL: "normal"})
    evil = replace(
        plain, name=EVIL, sample=sample, blocks=(block,), forward=replace(plain.forward, name=EVIL, labels=labels)
    )
    path = folder / "page.html"
    path.write_text(page([*LIVE.values(), evil]), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run(
        [*command, "--virtual-time-budget=2000", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, encoding="utf-8", check=False, timeout=120,
    )  # fmt: skip
    found = re.search(r'<pre id="scenes">(.*?)</pre>', done.stdout, re.S)
    assert found is not None, done.stdout[-2000:] + done.stderr[-2000:]
    result: dict[str, Any] = json.loads(html.unescape(found[1]))
    return result


def expected(one: Live, sizes: dict[str, int], seed: int) -> np.ndarray[Any, Any]:
    """The first block as NumPy computes it from the inputs that the seed gives."""
    program, label = one.forward, one.forward.labels.name
    scalars = {s.name: one.sample.scalars[label(s.name)] for s in program.scalars}
    arrays = {}
    for k, key in enumerate(program.inputs):
        shape = extents(program.tensor(key).shape, {**sizes, **scalars})
        below = min(extents(dict(one.stops).get(key, ()), {**sizes, **scalars}), default=3)
        kind = one.sample.kinds.get(label(key), "whole")
        arrays[key] = np.array(drawn(kind, k, int(np.prod(shape)), seed, below)).reshape(shape)
    block = one.blocks[0].program
    return evaluate(block, arrays, sizes, scalars)[block.outputs[0]]


@pytest.mark.parametrize(
    ("scene", "name"),
    [("open", "softmax"), ("again", "softmax"), ("small", "softmax"), ("loss", "cross_entropy"), ("pool", "maxpool1d")],
)
def test_the_heat_map_s_values_are_numpy_s(scenes: dict[str, Any], scene: str, name: str) -> None:
    shown = scenes[scene]
    values = expected(LIVE[name], shown["sizes"], shown["seed"])
    assert tuple(shown["shape"]) == values.shape
    np.testing.assert_allclose(decoded(shown["values"]), values.ravel(), rtol=1e-12, atol=1e-14)


def test_the_summary_says_shape_ends_and_zeros(scenes: dict[str, Any]) -> None:
    values = expected(LIVE["softmax"], scenes["open"]["sizes"], 1)
    text = scenes["open"]["summary"]
    assert text.startswith("∂y/∂x: 15 rows (y: 3 × 5) by 15 columns (x: 3 × 5). Least −0.")
    assert text.endswith(f"{np.count_nonzero(values)} of 225 entries are not zero.")
    assert scenes["loss"]["summary"].startswith("∂loss/∂x: 1 row (loss: one number) by 15 columns (x: 3 × 5).")


def test_focus_and_keys_show_an_entry(scenes: dict[str, Any]) -> None:
    values = expected(LIVE["softmax"], scenes["open"]["sizes"], 1)
    assert scenes["open"]["entry"] == "" and scenes["focused"]["entry"].startswith("∂y[0,0]/∂x[0,0] = 0.")
    head, _, number = scenes["moved"]["entry"].partition(" = ")
    assert head == "∂y[0,2]/∂x[0,1]" and float(number.replace("−", "-")) == pytest.approx(values[0, 2, 0, 1], rel=1e-4)
    assert scenes["end"]["entry"].startswith("∂y[2,4]/∂x[2,4] = ") and scenes["end"]["at"] == 224


def test_another_input_is_one_click_away(scenes: dict[str, Any]) -> None:
    assert scenes["again"]["seed"] == scenes["open"]["seed"] + 1
    assert scenes["again"]["values"] != scenes["open"]["values"]


def test_sizes_that_cannot_be_are_said_in_words(scenes: dict[str, Any]) -> None:
    assert scenes["large"]["problem"] == "∂y/∂x would have 102400 entries, more than 65536: choose smaller sizes."
    assert scenes["broken"]["problem"].startswith("N: ") and scenes["broken"]["hidden"]
    assert scenes["small"]["problem"] is None and not scenes["small"]["hidden"]
    assert scenes["empty"]["summary"].endswith("0 of 0 entries are not zero.")
    assert scenes["nowhere"]["problem"].startswith("The layer does not allow this: an axis without elements")


def test_an_input_can_be_written_by_hand(scenes: dict[str, Any]) -> None:
    block = LIVE["softmax"].blocks[0].program
    values = evaluate(block, {"x0": np.array([[0.0, 1000.0]])}, {"s0": 1, "s1": 2})[block.outputs[0]]
    np.testing.assert_array_equal(decoded(scenes["written"]["values"]), values.ravel())
    assert scenes["many"]["problem"] == scenes["word"]["problem"] == "x takes 2 numbers."
    assert scenes["outside"]["problem"] == "labels takes 3 whole numbers from 0 to 4."
    assert scenes["inside"]["problem"] is None


def test_every_control_has_its_label_and_every_id_is_its_own(scenes: dict[str, Any]) -> None:
    assert (scenes["page"]["bare"], scenes["page"]["ids"]) == (0, 0)


def test_names_run_nothing(scenes: dict[str, Any]) -> None:
    assert scenes["page"]["title"] == "live" and scenes["page"]["images"] == 0
    assert EVIL in scenes["evil"]["summary"] and scenes["evil"]["head"] == f"∂{EVIL}/∂{EVIL}"
