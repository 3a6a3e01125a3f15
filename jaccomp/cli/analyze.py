"""Say what the Jacobians of a model are over data: spectra and gradient norms by depth, influence, amplification, the
worst perturbations and how far first order holds, margins. Writes report.html, which needs nothing else and no network,
report.json and the figures into a folder.

MODEL is "digits", the trained network of `jaccomp demo`, or a LAYER, as of every command, with --parameters. Data files
are data: they are read without pickle.
"""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jaccomp.cli import console
from jaccomp.errors import UsageError

if TYPE_CHECKING:
    from jaccomp.analysis.model import Model
    from jaccomp.analysis.study import Study
    from jaccomp.layer import Layer

HELP = "what Jacobians say of a model over data"
DIGITS = "digits"
NEEDS = {"matplotlib": "matplotlib"}
Array = NDArray[Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help='"digits", or LAYER')
    parser.add_argument("--data", metavar="DATA", help='.npy, .npz (its array "x", or its only one), or "digits"')
    parser.add_argument("-o", "--output", default="analysis-output", metavar="DIR", help="the folder: %(default)s")
    parser.add_argument("--parameters", metavar="FILE", help=".npz with the model's parameters by name")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a scalar, or a size")
    parser.add_argument("--of", metavar="TENSOR", help="whose Jacobian: the last output by default")
    parser.add_argument("--wrt", metavar="TENSOR", help="by what: the open input by default")
    parser.add_argument("--image", metavar="HxW", help="samples are images of that shape; 8x8 for digits")
    parser.add_argument("--samples", type=int, default=16, metavar="N", help="studied one by one: %(default)s")
    parser.add_argument("--draws", type=int, default=8, metavar="N", help="random tangents for each: %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="%(default)s")
    parser.add_argument("--workers", type=int, metavar="N", help="threads; one for each core by default")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster, tcp://...: it works in our stead")
    parser.add_argument("--backend", choices=("cython", "numpy"), default="cython", help="%(default)s")
    parser.add_argument("--json", action="store_true", help="print what report.json holds")


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    from jaccomp import __version__
    from jaccomp.analysis import report
    from jaccomp.analysis.study import study

    model = _model(arguments)
    x, image = _real(_data(arguments.data or arguments.model), model.inputs, model.chain), _shape(arguments)
    if image is not None and x.ndim and image[0] * image[1] * len(x) != x.size:
        raise UsageError("analyze --image", f"samples of shape {x.shape[1:]} are no such image.", "Give another shape.")
    directory = Path(arguments.output)
    _write(directory, {})
    with console.Progress(1) as progress:
        found = study(
            model, x, of=arguments.of, wrt=arguments.wrt, chosen=arguments.samples, draws=arguments.draws,
            seed=arguments.seed, workers=arguments.workers, scheduler=arguments.scheduler,
            step=lambda done, total: _bar(progress, done, total),
        )  # fmt: skip
    facts = report.record(found, model, x, arguments.data or DIGITS, __version__)
    shown = report.figures(found, x, image)
    text = report.as_json(found, facts)
    files = {"report.html": report.html(found, model, shown, facts).encode(), "report.json": text.encode()}
    _write(directory, {**files, **{f"{one.name}.png": one.png() for one in shown}})
    if arguments.json:
        print(text)
    else:
        _tell(found, directory)
    return 0


def _bar(progress: console.Progress, done: int, total: int) -> None:
    progress.done, progress.total = done - 1, total
    filled = 30 * done // total
    progress.step(f"[{'#' * filled}{'.' * (30 - filled)}] studying")


def _tell(found: Study, directory: Path) -> None:
    print(f"{found.text}\n\n{console.heading('report')} {directory / 'report.html'}")


def _check(arguments: argparse.Namespace) -> None:
    """Raises `UsageError` for numbers that are none, and where matplotlib is missing."""
    missing = [package for module, package in NEEDS.items() if find_spec(module) is None]
    if missing:
        raise UsageError("analyze", f"it needs {' and '.join(missing)}.", "python -m pip install 'jaccomp[analysis]'")
    least = {"samples": 1, "draws": 1, "seed": 0, "workers": 1}
    for name, low in least.items():
        value = getattr(arguments, name)
        if value is not None and value < low:
            raise UsageError(f"analyze --{name}", f"it is {value}.", f"Give a whole number >= {low}.")
    if arguments.model != DIGITS and not arguments.data:
        raise UsageError("analyze", "no data was given.", "Give samples along axis 0 with --data FILE.")


# The model


def _model(arguments: argparse.Namespace) -> Model:
    if arguments.model == DIGITS and not Path(DIGITS).is_file():
        for name in ("parameters", "set"):
            if getattr(arguments, name):
                raise UsageError(f"analyze --{name}", "the digits have their own.", "Leave it out.")
        return _digits(arguments.backend)
    from jaccomp.analysis.model import Model
    from jaccomp.cli.target import only

    parameters = _arrays(arguments.parameters) if arguments.parameters else {}
    constants = dict(_constant(one) for one in arguments.set)
    layer = only(arguments.model).load()
    converted = {name: _real(value, [name], layer) for name, value in parameters.items()}
    return Model(layer, converted, backend=arguments.backend, threads=1, **constants)


def _digits(backend: str) -> Model:
    """The demonstration's network, trained now."""
    import jaccomp as jc
    from jaccomp.cli import digits

    _needs_sklearn()
    kernels = {name: jc.compile(name) for name in digits.LAYERS}
    with console.Progress(digits.EPOCHS) as progress:
        trained = digits.train(
            kernels, digits.load_digits(), lambda epoch: progress.step(f"training, loss {epoch.loss:.4f}")
        )
    return digits.classifier(trained, backend=backend, threads=1)


def _needs_sklearn() -> None:
    if find_spec("sklearn") is None:
        raise UsageError("analyze digits", "it needs scikit-learn.", "python -m pip install 'jaccomp[analysis]'")


def _constant(text: str) -> tuple[str, float | int]:
    name, _, value = text.partition("=")
    try:
        return name, int(value) if value.lstrip("-").isdecimal() else float(value)
    except ValueError:
        raise UsageError(f"analyze --set {text}", "it is not NAME=NUMBER.", "Write --set eps=1e-5.") from None


# Data


def _real(value: Array, names: Sequence[str], layer: Layer) -> Array:
    """Numbers for a real input of a layer, in float64 whatever they are kept in; of an integer one as they are."""
    real = any(t.name in names and t.dtype == "real" for t in layer.spec.inputs)
    return value.astype(np.float64) if real else value


def _data(given: str) -> Array:
    """The samples."""
    if given == DIGITS:
        from jaccomp.cli import digits

        _needs_sklearn()
        return digits.load_digits().x_test
    arrays = _arrays(given)
    if "x" not in arrays and len(arrays) != 1:
        raise UsageError(f"data {given}", f"it has {', '.join(sorted(arrays)) or 'no array'}.", 'Call the samples "x".')
    return arrays.get("x", next(iter(arrays.values())))


def _arrays(path: str) -> Mapping[str, Array]:
    """The arrays of a .npz, or the one of a .npy; nothing in them is executed. Raises `UsageError`."""
    try:
        with np.errstate(all="ignore"):
            loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            found = {"x": loaded}
        else:
            with loaded:
                found = {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise UsageError(f"file {path}", f"it cannot be read: {error.strerror or error}.") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"file {path}", f"it holds no arrays: {reason}", "Write it with numpy.savez.") from None
    for name, value in found.items():
        if value.dtype.kind not in "fiub":
            raise UsageError(f"file {path}, array {name!r}", f"its dtype is {value.dtype}.", "Give real numbers.")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise UsageError(f"file {path}, array {name!r}", "it holds infinities or NaN.", "Give finite numbers.")
    return found


def _shape(arguments: argparse.Namespace) -> tuple[int, int] | None:
    given = arguments.image or ("8x8" if arguments.model == DIGITS and arguments.wrt in (None, "x") else None)
    if given is None:
        return None
    height, _, width = given.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise UsageError(f"analyze --image {given}", "it is no shape.", "Write --image 8x8.")
    return int(height), int(width)


def _write(directory: Path, files: Mapping[str, bytes]) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (directory / name).write_bytes(content)
    except OSError as error:
        raise UsageError(
            f"analyze -o {directory}", f"it cannot be written: {error.strerror}.", "Choose another folder."
        ) from None
