"""`jaccomp analyze`: what it writes and prints, from data that is only data."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from commands import Run

import jaccomp as jc
from jaccomp import layers as L
from jaccomp.analysis import plots
from jaccomp.analysis.model import Model
from jaccomp.analysis.sensitivity import Influence
from jaccomp.analysis.study import study
from jaccomp.errors import UsageError

CHAINS = """\
import jaccomp as jc
from jaccomp.layers import attention, batchnorm, conv2d, cross_entropy, embedding, global_avgpool2d, linear, mean_pool
from jaccomp.layers import rmsnorm, tanh

mlp = jc.chain("mlp", fc1=linear, act=tanh, fc2=linear)
heard = jc.stage(attention, q="norm", k="norm", v="norm")
sentence = jc.chain("sentence", norm=rmsnorm, heard=heard, pool=mean_pool)
words = jc.chain("words", table=embedding, fc=linear)
scored = jc.chain("scored", fc=linear, loss=cross_entropy)
pictures = jc.chain("pictures", conv=conv2d, norm=batchnorm, pool=global_avgpool2d)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "chains.py").write_text(CHAINS)
    np.savez(
        "parameters.npz", fc1_W=rng.standard_normal((6, 4)), fc1_b=np.zeros(6),
        fc2_W=rng.standard_normal((3, 6)), fc2_b=np.zeros(3),
    )  # fmt: skip
    np.savez("data.npz", x=rng.standard_normal((9, 4)))
    np.savez("gain.npz", norm_g=np.ones(4))
    np.save("sentences.npy", rng.standard_normal((3, 5, 4)))
    return tmp_path


FEW = ("--backend", "numpy", "--samples", "2", "--draws", "2")
MLP = ("analyze", "chains.py:mlp", "--parameters", "parameters.npz", *FEW)


class Document(HTMLParser):
    """The tags of a document that ask for something, the ids, and what its policy says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.policy = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.ids |= {found["id"]} if "id" in found else set()
        self.sources += [found["src"]] if "src" in found else []
        self.links += [found["href"]] if "href" in found else []
        assert "style" not in found and not any(name.startswith("on") for name in found)
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]


def test_a_chain_of_a_file_over_data_of_a_file(run: Run, folder: Path) -> None:
    code, out, err = run(*MLP, "--data", "data.npz", "-o", "out", "--seed", "3", "--json")
    assert code == 0 and err == ""
    record = json.loads(out)
    assert record == json.loads((folder / "out" / "report.json").read_text())
    assert record["seed"] == 3 and record["samples"] == 9 and len(record["chosen"]) == 2
    assert {"Python", "numpy", "scipy", "matplotlib", "jaccomp", "data", "parameters", "seed"} <= set(record["record"])
    left = {path.name for path in (folder / "out").iterdir()}
    figures = {"spectra", "gradients", "amplification", "influence", "validity", "margins"}
    assert left == {"report.html", "report.json", *(f"{name}.png" for name in figures)}
    assert (folder / "out" / "spectra.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_stands_alone(run: Run, folder: Path) -> None:
    assert run(*MLP, "--data", "data.npz", "-o", "out")[0] == 0
    text = (folder / "out" / "report.html").read_text(encoding="utf-8")
    page = Document(text)
    assert len(page.sources) == 6 and all(one.startswith("data:image/png;base64,") for one in page.sources)
    assert all(one.startswith("#") and one[1:] in page.ids for one in page.links)
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    style = re.search("<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = b64encode(sha256(style[1].encode()).digest()).decode()
    assert page.policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    assert "http" not in text.replace("http-equiv", "") and str(folder) not in text


def test_a_second_run_writes_the_same_bytes(run: Run, folder: Path) -> None:
    for name, workers in (("one", 1), ("two", 3)):
        assert run(*MLP, "--data", "data.npz", "-o", name, "--workers", workers)[0] == 0
    for path in (folder / "one").iterdir():
        assert path.read_bytes() == (folder / "two" / path.name).read_bytes(), path.name


def test_tokens_have_a_map_of_their_influence(run: Run, folder: Path) -> None:
    words = ("analyze", "chains.py:sentence", "--parameters", "gain.npz", "--data", "sentences.npy")
    code, out, _ = run(*words, *FEW, "-o", "out", "--json")
    assert code == 0 and (folder / "out" / "tokens.png").exists()
    assert np.shape(json.loads(out)["energy"]["values"]) == (2, 5, 4)


def test_the_digits(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    code, out, _ = run("analyze", "digits", "-o", tmp_path, "--samples", "4")
    assert code == 0 and "margins of 360 samples" in out and out.count("which 100% reach") == 2
    assert {"influence.png", "worst.png"} <= {path.name for path in tmp_path.iterdir()}


def test_numbers_of_other_dtypes_are_what_they_say(run: Run, folder: Path) -> None:
    """Parameters in float32, as most are kept, and data of whole numbers."""
    whole = np.arange(24).reshape(6, 4)
    np.savez("single.npz", **{name: value.astype(np.float32) for name, value in np.load("parameters.npz").items()})
    np.savez("double.npz", **{name: value.astype(np.float64) for name, value in np.load("single.npz").items()})
    np.save("whole.npy", whole)
    np.save("floats.npy", whole.astype(np.float64))
    found = []
    for parameters, data in (("single", "whole"), ("double", "floats")):
        words = ("analyze", "chains.py:mlp", "--parameters", f"{parameters}.npz", "--data", f"{data}.npy")
        code, out, err = run(*words, *FEW, "--json")
        assert (code, err) == (0, "")
        found.append({name: one for name, one in json.loads(out).items() if name != "record"})
    assert found[0] == found[1]


def test_tokens_go_by_what_they_are_embedded_in(run: Run, folder: Path) -> None:
    rng = np.random.default_rng(1)
    np.savez("words.npz", table_table=rng.standard_normal((7, 4)), fc_W=rng.standard_normal((3, 4)), fc_b=np.zeros(3))
    np.save("ids.npy", rng.integers(0, 7, (5, 6)))
    np.save("beyond.npy", np.array([[1, 2], [3, 7]]))
    words = ("analyze", "chains.py:words", "--parameters", "words.npz", *FEW, "--json")
    code, _, err = run(*words, "--data", "ids.npy")
    assert code == 2 and "study of model 'words': ids is of integers.\n  Name a real tensor for `wrt`" in err
    code, out, _ = run(*words, "--data", "ids.npy", "--wrt", "table_y")
    assert code == 0 and np.shape(json.loads(out)["energy"]["values"]) == (2, 6, 4)
    code, _, err = run(*words, "--data", "beyond.npy", "--wrt", "table_y")
    assert code == 2 and "does not take samples of shape (2,): embedding(ids, table): ids[" in err


def test_a_loss_of_one_sample_is_studied(run: Run, folder: Path) -> None:
    rng = np.random.default_rng(2)
    np.savez("scored.npz", fc_W=rng.standard_normal((3, 4)), fc_b=np.zeros(3), loss_labels=np.array([1]))
    code, out, _ = run(
        "analyze", "chains.py:scored", "--parameters", "scored.npz", "--data", "data.npz", *FEW, "--json"
    )
    found = json.loads(out)
    assert code == 0 and found["influence"] is None and found["margins"] is None
    assert found["energy"]["probes"] == 0 and np.sqrt(np.sum(found["energy"]["values"][0])) == pytest.approx(
        found["worst"][0]["gain"]
    )


def test_samples_that_would_meet_in_a_batch_are_studied_by_themselves(run: Run, folder: Path) -> None:
    rng = np.random.default_rng(3)
    weights = {"conv_weight": rng.standard_normal((3, 1, 3, 3)), "conv_b": np.zeros(3)}
    np.savez("pictures.npz", **weights, norm_g=np.ones(3), norm_bias=np.zeros(3))
    np.save("images.npy", images := rng.standard_normal((3, 1, 6, 6)))
    words = ("analyze", "chains.py:pictures", "--parameters", "pictures.npz", "--data", "images.npy", *FEW)
    code, out, _ = run(*words, "--image", "6x6", "-o", "out", "--json")
    assert code == 0
    assert not (folder / "out" / "tokens.png").exists() and (folder / "out" / "influence.png").exists()
    chain = jc.chain("pictures", conv=L.conv2d, norm=L.batchnorm, pool=L.global_avgpool2d)
    y = [Model(chain, dict(np.load("pictures.npz")), backend="numpy")(images[k : k + 1])[-1] for k in range(3)]
    chords = [np.linalg.norm(y[a] - y[b]) / np.linalg.norm(images[a] - images[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert json.loads(out)["lipschitz"]["chord"] == pytest.approx(max(chords), rel=1e-9)


class Trap:
    """What no data file may do: run code when it is read."""

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return Exception, ("sprung",)


def test_data_is_never_unpickled(run: Run, folder: Path) -> None:
    np.save("trap.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    (folder / "trap.npz").write_bytes((folder / "trap.npy").read_bytes())
    for name in ("trap.npy", "trap.npz"):
        code, _, err = run(*MLP, "--data", name)
        assert code == 2 and err.startswith(f"jaccomp: file {name}: it holds no arrays: Object arrays cannot be loaded")
    assert run(*MLP[:3], "trap.npy", "--data", "data.npz")[0] == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("chains.py:mlp",), "analyze: no data was given."),
        (("chains.py:mlp", "--data", "none.npy"), "file none.npy: it cannot be read: No such file or directory."),
        (("chains.py:mlp", "--data", "chains.py"), "file chains.py: it holds no arrays"),
        (("chains.py:mlp", "--data", "parameters.npz"), "data parameters.npz: it has fc1_W, fc1_b, fc2_W, fc2_b."),
        (("chains.py:mlp", "--data", "nan.npy"), "file nan.npy, array 'x': it holds infinities or NaN."),
        (("chains.py:mlp", "--data", "words.npy"), "file words.npy, array 'x': its dtype is <U1."),
        (("chains.py:mlp", "--data", "data.npz"), "study of model 'mlp': 5 inputs are open: x, fc1_W"),
        (("chains.py:mlp", "--data", "data.npz", "--set", "eps"), "analyze --set eps: it is not NAME=NUMBER."),
        (("chains.py:mlp", "--data", "data.npz", "--image", "8"), "analyze --image 8: it is no shape."),
        (("chains.py:mlp", "--data", "data.npz", "--image", "3x3"), "analyze --image: samples of shape (4,)"),
        (("chains.py:mlp", "--data", "data.npz", "--samples", "0"), "analyze --samples: it is 0."),
        (
            ("chains.py:mlp", "--data", "data.npz", "--parameters", "other.npz"),
            "model 'mlp': the chain has no input 'Q'.",
        ),
        (("relu", "--data", "data.npz", "--of", "q", "--backend", "numpy"), "there is no tensor 'q'."),
        (("digits", "--parameters", "parameters.npz"), "analyze --parameters: the digits have their own."),
        (("nothing", "--data", "data.npz"), "layer 'nothing': the library has no layer of that name."),
        (("relu", "--data", "data.npz", "--backend", "numpy", "-o", "chains.py/x"), "it cannot be written"),
        (
            ("relu", "--data", "data.npz", "--backend", "numpy", "--scheduler", "tcp://127.0.0.1:9"),
            "none answers there",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_analyze_refuses(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], says: str
) -> None:
    monkeypatch.setattr("jaccomp.analysis.parallel.PATIENCE", 1)
    np.save("nan.npy", np.array([[1.0, np.nan]]))
    np.save("words.npy", np.array(["a"]))
    np.savez("other.npz", Q=np.ones(2))
    if "tcp://127.0.0.1:9" in words:
        pytest.importorskip("distributed")
    code, _, err = run("analyze", *words)
    assert code == 2 and says in err and "Traceback" not in err


def test_a_model_that_no_sample_moves_is_studied(run: Run, folder: Path) -> None:
    np.save("negative.npy", -np.ones((3, 4)))
    code, out, err = run("analyze", "relu", "--data", "negative.npy", "--backend", "numpy", "--json")
    record = json.loads(out)
    assert code == 0 and err == "" and record["validity"] == [[], [], []]
    assert record["amplification"]["stages"][0]["norm"] == record["lipschitz"]["value"] == 0


def test_where_curvature_says_nothing_a_kink_is_named() -> None:
    rng = np.random.default_rng(4)
    model = Model(jc.chain("kinked", act=L.relu), backend="numpy")
    x = np.abs(rng.standard_normal((2, 4))) + 0.1
    found = study(model, x, chosen=2, draws=2)
    assert all(np.isfinite(one.radius) and one.guaranteed == np.inf for pair in found.validity for one in pair[1:])
    assert "ways that fall short of curvature along them meet a kink" in found.text and " inf," not in found.text
    shown = plots.radii([one for pair in found.validity for one in pair])
    assert len(shown.figure.axes) == 1 and "say nothing" in shown.caption


def test_a_sample_that_does_not_fit_is_refused(run: Run, folder: Path) -> None:
    np.save("wide.npy", np.ones((3, 7)))
    code, _, err = run(*MLP, "--data", "wide.npy")
    assert code == 2 and "study of model 'mlp': it does not take samples of shape (7,)" in err


def test_analyze_says_what_it_needs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaccomp.cli.analyze.find_spec", lambda name: None)
    code, _, err = run("analyze", "digits")
    assert code == 2 and err == (
        "jaccomp: analyze: it needs matplotlib.\n  python -m pip install 'jaccomp[analysis]'\n"
    )


def test_a_map_of_another_shape_is_refused() -> None:
    one = np.ones((2, 6))
    found = Influence("y", "x", 3, one, one, one, one, one, np.ones(6))
    assert plots.influences(found, (2, 3)).numbers["shown"].shape == (2, 2, 3)
    many = np.arange(96.0).reshape(16, 6)
    maps = plots.influences(Influence("y", "x", 3, many, many, many, many, many, np.ones(6)), (2, 3))
    width, height = maps.figure.get_size_inches()
    assert maps.numbers["way"].shape == (16, 2, 3) and width < 12 and height > 4, "in two bands, one below the other"
    with pytest.raises(UsageError, match="an image of 4 by 2 has not 6 pixels"):
        plots.influences(found, (4, 2))
