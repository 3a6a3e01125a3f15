"""The gallery as files: what a page holds and allows, what stays text, how a site gets into a folder, its command."""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from commands import Run
from gallery_cards import HOSTILE, as_shown, card
from hypothesis import given
from hypothesis import strategies as st
from sympy import Eq

import jaccomp as jc
from jaccomp.card import Card
from jaccomp.cli import gallery as command
from jaccomp.errors import SpecError, StageError, UsageError
from jaccomp.gallery import documents, publish
from jaccomp.gallery.index import structure_terms
from jaccomp.gallery.page import PARTS, Content, page
from jaccomp.gallery.publish import MARK
from jaccomp.gallery.site import file_name, site
from jaccomp.gallery.slugs import TAKEN, slug
from jaccomp.live import live


class Parsed(HTMLParser):
    """The elements of a document in order, each with its attributes, and the texts of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag in self.raw:
            self.raw[tag].append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem in self.raw:
            self.raw[self.cdata_elem][-1] += data
        else:
            self.text += data

    def skeleton(self) -> list[tuple[str, tuple[str, ...]]]:
        """What a page is made of, without its texts and the lengths of its formulas."""
        outside = [one for one in self.elements if not one[0].startswith("m") or one[0] in ("main", "meta")]
        return [(tag, tuple(attributes)) for tag, attributes in outside if tag not in ("math", "code")]


def digest(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def made(*cards: Card) -> dict[str, str]:
    return site("Layers", [Content(one) for one in cards])


def pages() -> dict[str, str]:
    return made(card(), card("relu", "activations"), card("mine", ""))


# What a page may do


@pytest.mark.parametrize("text", [page(card()), *pages().values()])
def test_the_content_policy_allows_the_page_its_own_style_and_scripts_alone(text: str) -> None:
    parsed = Parsed(text)
    (policy,) = [a["content"] for tag, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["script-src"].split() == list(dict.fromkeys(map(digest, parsed.raw["script"])))
    assert rules["style-src"].split() == list(map(digest, parsed.raw["style"]))
    rest = {name: value for name, value in rules.items() if name not in ("script-src", "style-src")}
    assert rest == {"default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}
    first = next(k for k, (tag, _) in enumerate(parsed.elements) if tag in ("script", "style", "link"))
    assert any(a.get("http-equiv") for _, a in parsed.elements[:first]), "the policy comes before what it governs"


@pytest.mark.parametrize("text", [page(card()), *pages().values()])
def test_a_page_asks_for_nothing_and_has_no_handler_in_its_text(text: str) -> None:
    for tag, attributes in Parsed(text).elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert not {name for name in attributes if name.startswith("on") or name in ("src", "style", "srcdoc")}
        target = attributes.get("href", "#")
        assert target.startswith("#") or re.fullmatch(r"[a-z0-9_-]+\.html(#[a-z-]+=[a-z0-9+%]+)?", target)


def test_a_script_that_would_end_early_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("a</SCRIPT>b", "<!-- x", "a\r\nb", "a\x00b"):
        with pytest.raises(StageError, match="which a page cannot hold as it is"):
            documents.document("card.html.j2", title="x", styles=[], scripts=[text])


# What stays text


@pytest.mark.parametrize("say", HOSTILE)
def test_what_an_author_chose_adds_no_element_and_no_attribute(say: str) -> None:
    plain, spoken = Parsed(page(card())), Parsed(page(card(name=say, family=say, say=say)))
    assert spoken.skeleton() == plain.skeleton()
    assert spoken.text.count(as_shown(say)) >= 30
    assert spoken.raw == plain.raw


@pytest.mark.parametrize("say", HOSTILE)
def test_an_index_shows_what_an_author_chose_as_text(say: str) -> None:
    safe = made(card("a", "b"))["index.html"]
    text = site(f"Layers{say}", [Content(card(name=f"a{say}", family=f"b{say}", say=say))])["index.html"]
    plain, spoken = Parsed(safe), Parsed(text)
    assert set(spoken.skeleton()) == set(plain.skeleton()) and spoken.raw == plain.raw


@pytest.mark.parametrize("name", [HOSTILE[0], "../x", "a b", ""])
def test_a_layer_that_is_called_so_is_refused_by_name(name: str) -> None:
    n = jc.index("n", jc.size("N"))
    x, y = jc.tensor("x y", jc.size("N"))
    with pytest.raises(SpecError, match="the name is not a Python identifier") as caught:
        jc.Layer(name, inputs=[x], outputs=[y], equations=[Eq(y[n], x[n])])
    assert repr(name) in str(caught.value)


# What a page holds


def test_a_page_holds_everything_of_its_card() -> None:
    shown = Parsed(page(card(), live(jc.layers.relu))).text
    whole = card()
    assert [part.title for part in PARTS if part.title not in shown] == []
    words = [
        whole.name, whole.family, whole.doc, whole.signature, whole.spec_hash, "[N, D]", "1e-05", "diag(y) - y yᵀ",
        "block diagonal: diagonal + rank 1", "N D", "2 N D", "3 N D", "at most 1/2", "a b + a c", "a (b + c)",
        "it is an output", "kept", "the exponential", "a convention", "for n in range(N):",
        "u0[n] = Σ_k exp(x[n,k])", "240 cases, passed", "2026-01-02", "numpy 2.4.6", "complex step", "3.5e-15",
        "Numerator layout", whole.blocks[0].line.latex,
    ]  # fmt: skip
    assert [one for one in words if one not in shown] == []


def test_a_card_that_has_little_to_say_has_few_sections() -> None:
    bare = replace(
        card(), family="", doc="", intermediates=(), local=(), chain=(), blocks=(), rules=(), vjp=(), jvp=(),
        residuals=(), costs=(), conventions=(), domain=(), source=(), checks=None,
    )  # fmt: skip
    parsed = Parsed(page(bare))
    assert [a["id"] for tag, a in parsed.elements if tag == "section"] == ["definition"]


def test_a_formula_that_no_printer_wrote_is_shown_as_its_text() -> None:
    odd = replace(card(), vjp=(replace(card().vjp[0], latex=r"\href{x}{y}", text="as text <b>"),))
    assert "<code>as text &lt;b&gt;</code>" in page(odd)


def test_pages_lead_to_their_neighbours_and_back() -> None:
    links = {name: [a["href"] for tag, a in Parsed(text).elements if tag == "a"] for name, text in pages().items()}
    assert links["mine.html"][1:4] == ["index.html", "relu.html", "softmax.html"], (
        "families in order of their names, then layers"
    )
    assert [one for one in links["index.html"] if one in links] == ["relu.html", "mine.html", "softmax.html"]
    assert all(one.partition("#")[0] in {*links, ""} for some in links.values() for one in some)


def test_links_within_a_page_have_their_ends() -> None:
    for text in pages().values():
        parsed = Parsed(text)
        ids = [a["id"] for _, a in parsed.elements if "id" in a]
        assert len(ids) == len(set(ids))
        ends = [a["href"][1:] for tag, a in parsed.elements if tag == "a" and a["href"].startswith("#")]
        assert ends and set(ends) <= set(ids)


def test_the_same_cards_make_the_same_bytes() -> None:
    cards = [card(), card("relu", "activations")]
    assert made(*cards) == made(*cards[::-1])


@pytest.mark.parametrize(
    ("words", "terms"),
    [
        ("diagonal", ("diagonal",)),
        ("block diagonal: diagonal + rank 2", ("block diagonal", "diagonal + low rank")),
        ("Kronecker: I ⊗ rank 1", ("Kronecker", "low rank")),
        ("low rank", ("low rank",)),
        ("zero", ("zero",)),
        ("", ()),
    ],
)
def test_a_structure_is_filtered_by_what_it_is_put_together_from(words: str, terms: tuple[str, ...]) -> None:
    assert structure_terms(words) == terms


# File names

SAFE = re.compile(r"[a-z0-9_-]{1,69}")


@pytest.mark.parametrize(
    "name",
    [
        *HOSTILE,
        "../x",
        "..",
        ".",
        "",
        "a/b",
        "a\\b",
        "C:",
        "con",
        "NUL",
        "com1",
        "LPT9",
        "index",
        "größe",
        "Σ",
        "x" * 300,
        "-o",
    ],
)
def test_a_file_name_is_safe_whatever_the_name(name: str) -> None:
    made = slug(name)
    assert SAFE.fullmatch(made) and made not in TAKEN and not made.startswith("-")


def test_plain_names_are_their_own_file_names() -> None:
    assert [slug(name) for name in jc.layers.names()] == list(jc.layers.names())


@given(st.lists(st.text(max_size=8) | st.sampled_from(["a", "A", "ä", "con", "a-1"]), unique=True, max_size=20))
def test_names_that_differ_have_file_names_that_differ_beyond_case(names: list[str]) -> None:
    made = [slug(name) for name in names]
    assert len({one.lower() for one in made}) == len(made) and all(map(SAFE.fullmatch, made))


def test_two_layers_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two layers are called 'softmax'"):
        made(card(), card())
    with pytest.raises(UsageError, match="there is no layer to show"):
        site("Layers", [])


# Into a folder


def test_a_site_is_written_and_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "site"
    written = publish.publish(pages(), folder)
    assert sorted(path.name for path in written) == sorted(pages())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    publish.publish(pages(), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert set(before) == {*pages(), MARK} and before["index.html"] == pages()["index.html"].encode()


def test_pages_of_layers_that_are_gone_go_and_nothing_else_does(tmp_path: Path) -> None:
    publish.publish(pages(), tmp_path)
    (tmp_path / "notes.html").write_text("mine")
    publish.publish(made(card()), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"softmax.html", "index.html", "notes.html", MARK}


def test_a_list_of_files_that_points_elsewhere_deletes_nothing(tmp_path: Path) -> None:
    folder, outside = tmp_path / "site", tmp_path / "outside.html"
    outside.write_text("mine")
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / MARK).write_text(json.dumps({"files": ["../outside.html", str(outside), "notes.txt", 7]}))
    publish.publish(pages(), folder)
    assert outside.exists() and (folder / "notes.txt").exists()


@pytest.mark.parametrize("mark", ["", "[]", "{", '{"files": 7}', '{"files": null}'])
def test_an_empty_or_broken_mark_marks_a_gallery_all_the_same(tmp_path: Path, mark: str) -> None:
    (tmp_path / MARK).write_text(mark)
    (tmp_path / "notes.txt").write_text("mine")
    publish.publish(pages(), tmp_path)
    assert (tmp_path / "index.html").exists() and (tmp_path / "notes.txt").exists()


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(UsageError, match=re.escape(f"put an empty file {MARK} into it")) as caught:
        publish.publish(pages(), tmp_path)
    assert "it holds 'index.html' and is no gallery" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "site").write_text("mine")
    with pytest.raises(UsageError, match="it is a file"):
        publish.check(tmp_path / "site")


def test_a_write_that_fails_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, content: bytes, mode: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publish.store, "write_atomically", fail)
    with pytest.raises(jc.errors.BuildError, match="cannot be written: No space left on device") as caught:
        publish.publish(pages(), tmp_path / "site")
    assert "Choose another folder with -o." in str(caught.value)


# The command


@pytest.fixture
def derived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cards without their derivation, which is tested where it is made."""
    monkeypatch.setattr(command, "content", lambda target: Content(card(target.name, target.family)))


@pytest.mark.usefixtures("derived")
def test_the_command_writes_the_whole_library(run: Run, tmp_path: Path) -> None:
    code, out, err = run("gallery", "-o", tmp_path / "site")
    assert (code, out, err) == (0, f"{tmp_path / 'site' / 'index.html'}\n", "")
    names = {path.name for path in (tmp_path / "site").iterdir()}
    assert names == {MARK, "index.html", *(f"{name}.html" for name in jc.layers.names())}


@pytest.mark.usefixtures("derived")
def test_the_command_writes_the_layers_of_a_spec_file(run: Run, specs: Path, tmp_path: Path) -> None:
    code, out, _ = run("gallery", specs, "-o", tmp_path / "site", "--json")
    record = json.loads(out)
    assert code == 0 and [one["name"] for one in record["pages"]] == ["double", "square"]
    assert record["directory"] == str(tmp_path / "site") and Path(record["index"]).is_file()
    assert all(Path(one["file"]).is_file() for one in record["pages"])
    assert "<h1>Layers of specs.py</h1>" in Path(record["index"]).read_text(encoding="utf-8")


@pytest.mark.usefixtures("derived")
def test_the_command_opens_the_index(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(command.webbrowser, "open", opened.append)
    assert run("gallery", "relu", "-o", tmp_path / "site", "--open")[0] == 0
    assert opened == [(tmp_path / "site" / "index.html").as_uri()]


def test_a_folder_that_cannot_be_filled_is_refused_before_anything_is_derived(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    code, out, err = run("gallery", "-o", tmp_path)
    assert (code, out) == (2, "") and "it holds 'notes.txt' and is no gallery" in err
    assert run("gallery", "nosuchlayer", "-o", tmp_path / "site")[0] == 2
    assert not (tmp_path / "site").exists() and os.listdir(tmp_path) == ["notes.txt"]


def test_a_card_is_the_layers_own(run: Run, tmp_path: Path) -> None:
    code, _, err = run("gallery", "relu", "-o", tmp_path)
    assert (code, err) == (0, "")
    assert jc.layers.relu.doc in (tmp_path / file_name(jc.layers.relu.card())).read_text(encoding="utf-8")
