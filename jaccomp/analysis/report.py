"""A study as files: one HTML document that needs nothing else and no network, each figure as a PNG, and JSON."""

from __future__ import annotations

import json
import platform
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from jaccomp.analysis import plots
from jaccomp.analysis.plots import Plot
from jaccomp.emit.templates import strict_environment, template_directory
from jaccomp.gallery.documents import policy_hash

if TYPE_CHECKING:
    from jaccomp.analysis.model import Model
    from jaccomp.analysis.study import Study

Array = NDArray[Any]
PACKAGES = ("numpy", "scipy", "matplotlib", "sympy")
# Characters that no HTML document may hold, and those that turn the direction of text around.
_NOT_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def figures(study: Study, x: Array, image: tuple[int, int] | None, words: Sequence[str] | None = None) -> list[Plot]:
    """What a study has to show. `image` is the shape of a sample of pixels; `words` name tokens, where there are."""
    ways = [one for pair in study.validity for one in pair]
    found = [plots.spectra(study.depths), plots.gradients(study.depths), plots.amplifiers(study.amplification)]
    if study.influence is not None:
        found.append(plots.influences(study.influence, image) if image is not None else plots.features(study.influence))
    if study.energy.values.ndim == 3 and image is None:
        found.append(plots.tokens(study.energy, words))
    if image is not None:
        reached = [min((one.radius for one in pair), default=0.0) for pair in study.validity]
        found.append(plots.worst(study.worst, x[list(study.chosen)], reached, image))
    if ways:
        found.append(plots.radii(ways))
    if study.margins is not None:
        found.append(plots.distances(study.margins))
    return found


def record(study: Study, model: Model, x: Array, data: str, version: str) -> dict[str, str]:
    """What it takes to have the same numbers again: data, parameters, seed, and the versions of what computed them.

    `version` is that of jaccomp, which an installation need not know.
    """
    parameters = sha256()
    for name in sorted(model.parameters):
        value = np.ascontiguousarray(model.parameters[name])
        parameters.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
    samples = np.ascontiguousarray(x)
    return {
        "model": repr(model.chain),
        "parameters": f"{len(model.parameters)} arrays, sha256 {parameters.hexdigest()}",
        "data": f"{data}: {samples.dtype} {list(samples.shape)}, sha256 {sha256(samples.tobytes()).hexdigest()}",
        "seed": str(study.seed),
        "samples one by one": ", ".join(map(str, study.chosen)),
        "backend": model.backend,
        "Python": platform.python_version(),
        "jaccomp": version,
        **{name: metadata.version(name) for name in PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}",
    }


def html(study: Study, model: Model, shown: Sequence[Plot], facts: Mapping[str, str]) -> str:
    """The document. Its content policy allows its own style and inline pictures, and nothing else."""
    style = (template_directory() / "analysis" / "report.css").read_text(encoding="utf-8")
    policy = f"default-src 'none'; style-src {policy_hash(style)}; img-src data:; base-uri 'none'; form-action 'none'"
    environment = strict_environment("analysis", escapes=True)
    pictures = [
        {"name": one.name, "title": one.title, "caption": one.caption, "png": b64encode(one.png()).decode()}
        for one in shown
    ]
    text = environment.get_template("report.html.j2").render(
        title=f"What Jacobians say of {study.model}",
        chain=model.chain.doc,
        policy=policy,
        style=Markup(style),
        plots=pictures,
        text=study.text,
        record=list(facts.items()),
    )
    return _NOT_TEXT.sub("\ufffd", text)


def as_json(study: Study, facts: Mapping[str, str]) -> str:
    """The study and its record as JSON text."""
    return json.dumps({"record": dict(facts), **study.plain()}, allow_nan=False, ensure_ascii=False)
