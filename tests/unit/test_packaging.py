"""pyproject.toml and requirements*.txt say the same, and a wheel is all that an engine and its viewer need."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def listed(file: str) -> list[str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return sorted(str(Requirement(line)) for line in lines if line.strip() and not line.startswith("#"))


@pytest.mark.parametrize(
    ("file", "declared"),
    [
        ("requirements.txt", [*PROJECT["dependencies"], *EXTRAS["page"]]),
        ("requirements-serve.txt", EXTRAS["serve"]),
        ("requirements-gpu.txt", EXTRAS["gpu"]),
        ("requirements-dev.txt", EXTRAS["dev"]),
    ],
)
def test_what_is_declared_and_what_is_installed_from_are_one(file: str, declared: list[str]) -> None:
    assert listed(file) == sorted(str(Requirement(one)) for one in declared)


def test_every_extra_is_pinned_and_known() -> None:
    assert set(EXTRAS) == {"page", "serve", "gpu", "train", "dev"}
    assert set(EXTRAS["train"]) <= set(EXTRAS["dev"])  # its tests run
    pinned = {Requirement(line).name.lower().replace("_", "-") for line in listed("constraints.txt")}
    for one in [*PROJECT["dependencies"], *EXTRAS["page"], *EXTRAS["serve"], *EXTRAS["train"], *EXTRAS["dev"]]:
        assert Requirement(one).name.lower().replace("_", "-") in pinned, one


def test_the_console_script_is_the_command_line() -> None:
    module, _, name = PROJECT["scripts"]["nemodiff"].partition(":")
    assert callable(getattr(__import__(module, fromlist=[name]), name))


def test_a_wheel_brings_what_lies_beside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = pytest.importorskip("hatchling.build", reason="it comes with requirements-dev.txt")
    monkeypatch.chdir(ROOT)
    with zipfile.ZipFile(tmp_path / backend.build_wheel(str(tmp_path))) as wheel:
        names = set(wheel.namelist())
    assert all(name.startswith(("nemodiff/", "nemodiff-")) for name in names)  # no other package, no tests
    ours = [path for path in (ROOT / "nemodiff").rglob("*.py") if "__pycache__" not in path.parts]
    beside = [path for folder in ("assets/checkpoints", "ui/player") for path in (ROOT / folder).rglob("*")]
    wanted = {path.relative_to(ROOT).as_posix() for path in ours}
    wanted |= {f"nemodiff/installed/{path.relative_to(ROOT).as_posix()}" for path in beside if path.is_file()}
    assert wanted <= names
    assert {f"nemodiff/trace/viewer/{name}" for name in ("replay.js", "replay.css", "beside.js", "beside.css")} <= names


@pytest.mark.parametrize(
    ("before", "after"), [({}, "0"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")]
)
def test_torchs_threads_do_not_spin_beside_the_kernels_unless_somebody_says_so(before: dict, after: str) -> None:
    """What is imported with the package leaves torch to whoever needs it: only before it comes this has an effect."""
    asked = "import os, sys, nemodiff; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    told = subprocess.run(
        [sys.executable, "-c", asked],
        env=kept | before,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == [after, "False"]
