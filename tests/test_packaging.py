"""The wheel and the source distribution as built: what they carry, and that what they carry compiles layers."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import jaccomp

ROOT = Path(__file__).resolve().parent.parent
USE = """
import pathlib, sys
import numpy as np
import jaccomp as jc
assert pathlib.Path(jc.__file__).is_relative_to(sys.argv[1]), jc.__file__
kernel = jc.compile("layernorm")
x = np.arange(12.0).reshape(3, 4)
y, pullback = kernel.vjp(x, np.ones(4), np.zeros(4))
assert abs(y.std(axis=1) - 1).max() < 1e-4 and pullback(np.ones((3, 4)))[2].tolist() == [3, 3, 3, 3]
assert jc.check("relu", backend="numpy")
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    done = subprocess.run([*command, str(wheel)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def run(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A process that sees the installed wheel, and whose cache is empty."""
    env = {**os.environ, "PYTHONPATH": str(installed), "JACCOMP_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, "-W", "error", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, encoding="utf-8", check=False)


def files(*folders: str) -> set[str]:
    """The files of the checkout that belong into a distribution."""
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {
        str(path.relative_to(ROOT)) for path in paths if "__pycache__" not in path.parts and path.name[0] not in ".#~"
    }


def test_the_wheel_carries_the_package_and_its_templates(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert files("jaccomp") <= names and "jaccomp/py.typed" in names
    assert {f"jaccomp/{name}" for name in files("templates")} <= names
    assert {name.split("/")[0] for name in names} == {"jaccomp", f"jaccomp-{jaccomp.__version__}.dist-info"}


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    folder = f"jaccomp-{jaccomp.__version__}.dist-info"
    metadata = Parser().parsestr(archive.read(f"{folder}/METADATA").decode())
    assert (metadata["Name"], metadata["Version"]) == ("jaccomp", jaccomp.__version__)
    assert metadata["License-Expression"] == "MIT" and f"{folder}/licenses/LICENSE" in archive.namelist()
    assert "jaccomp = jaccomp.cli:main" in archive.read(f"{folder}/entry_points.txt").decode()
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert len(required) == 6 and not any("torch" in line or "jax" in line for line in required)
    assert "jaccomp show softmax" in str(metadata.get_payload())


def test_the_source_distribution_carries_all_that_a_test_run_needs(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert files("jaccomp", "templates", "tests", "examples") <= names
    assert {"README.md", "CHANGELOG.md", "LICENSE", "SECURITY.md", "Makefile", "pyproject.toml"} <= names


def test_the_installed_wheel_compiles_a_layer(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "-c", USE, str(installed))
    assert done.returncode == 0, done.stderr


def test_the_installed_wheel_has_its_command(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, str(installed / "bin" / "jaccomp"), "build", "relu", "-o", "out", "--source")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "jaccomp.h").read_text() and (tmp_path / "out" / "relu.pyx").read_text()


def test_the_version_stands_in_one_number() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == jaccomp.__version__
