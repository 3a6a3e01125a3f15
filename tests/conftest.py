"""What every test runs in: a cache of the checkout's own, threads that wait without spinning, one flag for goldens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from commands import SPECS, Run

CACHE = "JACCOMP_CACHE_DIR"
LARGEST = 500_000_000  # bytes that the cache keeps between runs


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="write what golden files should hold")


def pytest_configure(config: pytest.Config) -> None:
    """One compile cache for the run and all its workers, which inherit the variable; the user's is left alone.

    It is found by content, so that what an earlier run left can only save time.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # workers share the cores; libgomp reads it when it is loaded
    paths = [str(config.rootpath), os.environ.get("PYTHONPATH", "")]  # for the processes that tests start
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    if not os.environ.get(CACHE):
        os.environ[CACHE] = str(config.rootpath / ".pytest_cache" / "modules")


def pytest_unconfigure(config: pytest.Config) -> None:
    own = str(config.rootpath / ".pytest_cache" / "modules")
    if "PYTEST_XDIST_WORKER" not in os.environ and os.environ.get(CACHE) == own:
        from jaccomp.build import default_cache

        default_cache().prune(max_bytes=LARGEST)


@pytest.fixture(scope="session")
def update_goldens(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-goldens"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The exit code, stdout and stderr of a command line."""
    from jaccomp.cli import main

    def call(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("FACTOR = 2\n")
    path = tmp_path / "specs.py"
    path.write_text(SPECS)
    return path
