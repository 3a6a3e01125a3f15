"""Train a network on scikit-learn's digits, forward and backward by generated kernels: 97 % in seconds.

It derives, compiles and checks each layer of linear -> layernorm -> gelu -> linear -> cross_entropy, trains with the
very modules that it leaves in the folder, and exits 1 unless all checks pass and the test accuracy reaches 97 %.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaccomp.cli import console
from jaccomp.errors import BuildError, UsageError

if TYPE_CHECKING:
    from jaccomp.cli.digits import Epoch
    from jaccomp.layer import Layer

HELP = "train a network on digits with generated kernels"
WANTED = 0.97
NEEDS = {"sklearn": "scikit-learn", "matplotlib": "matplotlib"}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", default="demo-output", metavar="DIR", help="the folder: %(default)s")
    parser.add_argument("--json", action="store_true", help="end with one object that holds test_accuracy and seconds")


def run(arguments: argparse.Namespace) -> int:
    missing = [package for module, package in NEEDS.items() if find_spec(module) is None]
    if missing:
        raise UsageError("demo", f"it needs {' and '.join(missing)}.", "python -m pip install 'jaccomp[demo]'")
    from jaccomp import layers
    from jaccomp.cli import digits

    say = _Teller(quiet=arguments.json)
    directory = Path(arguments.output)
    network = [layers.get(name) for name in digits.LAYERS]
    for layer in network:
        say(_derived(layer))
    start = time.perf_counter()
    kernels = _build(network, directory)
    build_seconds = time.perf_counter() - start
    say(f"{console.heading('compiled')} into {directory} in {build_seconds:.1f} s\n")
    passed = _check(network, kernels, say)
    say(f"{console.heading('training')} {digits.CHAIN}")
    epochs = digits.train(kernels, digits.load_digits(), lambda epoch: say(_line(epoch))).epochs
    _plot(epochs, directory / "training.png")
    accuracy, seconds = epochs[-1].test_accuracy, epochs[-1].seconds
    reached = accuracy >= WANTED
    verdict = console.painted(f"{accuracy:.2%}", console.GREEN if reached else console.RED)
    say(f"\ntest accuracy {verdict} after {seconds:.1f} s; modules, their source and training.png are in {directory}")
    if arguments.json:
        record = {"directory": str(directory), "check_passed": passed, "build_seconds": round(build_seconds, 2)}
        print(json.dumps({**record, "test_accuracy": accuracy, "seconds": round(seconds, 3)}))
    return 0 if passed and reached else 1


class _Teller:
    """Tells the story on stdout; with --json on stderr, where a terminal reads it."""

    def __init__(self, quiet: bool) -> None:
        self.stream = sys.stderr if quiet else sys.stdout
        self.heard = not quiet or sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        if self.heard:
            print(text, file=self.stream, flush=True)


def _derived(layer: Layer) -> str:
    blocks = [f"{block}    ({block.structure})" for block in layer.jacobians().values()]
    return f"{console.heading(layer.name)}: {layer.doc}\n{console.indented(blocks)}\n"


def _build(network: Sequence[Layer], directory: Path) -> dict[str, Any]:
    """The modules in `directory`, compiled for this CPU, and loaded from there."""
    from jaccomp.build import compile_into, load_module, store
    from jaccomp.compiling import source

    modules = {}
    with console.Progress(len(network)) as progress:
        for layer in network:
            progress.step(f"compiling {layer.name}")
            made = source(layer, "whole")
            path = compile_into(made, directory, march="native")
            try:
                for name, content in made.files():
                    store.write_atomically(directory / name, content, 0o644)
            except OSError as error:
                raise BuildError(
                    "demo", f"{directory} cannot be written: {error.strerror}.", "Choose another folder with -o."
                ) from None
            modules[layer.name] = load_module(layer.name, path)
    return modules


def _check(network: Sequence[Layer], kernels: dict[str, Any], say: _Teller) -> bool:
    """Climb the ladder with the modules that will train."""
    from jaccomp.cli import check
    from jaccomp.reference import ladder
    from jaccomp.reference.report import Report

    report = Report(())
    with console.Progress(len(network)) as progress:
        for layer in network:
            progress.step(f"checking {layer.name}")
            report = report + ladder.check(layer.spec, kernels[layer.name])
    say(f"{console.heading('checked')} against references that do not share the derivation\n{check.text(report)}\n")
    return report.passed


def _line(epoch: Epoch) -> str:
    share = f"{epoch.train_accuracy:7.2%} of training, {epoch.test_accuracy:7.2%} of test"
    return f"    epoch {epoch.number:3}   loss {epoch.loss:7.4f}   right: {share}   {epoch.seconds:5.1f} s"


def _plot(epochs: Sequence[Epoch], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    numbers = [epoch.number for epoch in epochs]
    left.plot(numbers, [epoch.loss for epoch in epochs])
    left.set(xlabel="epoch", ylabel="training loss", yscale="log")
    right.plot(numbers, [epoch.train_accuracy for epoch in epochs], label="training")
    right.plot(numbers, [epoch.test_accuracy for epoch in epochs], label="test")
    right.axhline(WANTED, color="grey", linewidth=0.8, linestyle="--", label=f"{WANTED:.0%}")
    right.set(xlabel="epoch", ylabel="accuracy", ylim=(0.8, 1.005))
    right.legend(loc="lower right")
    figure.suptitle("digits, trained forward and backward by generated kernels")
    figure.savefig(path, dpi=150)
