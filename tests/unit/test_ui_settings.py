"""ui.settings and what a Space reads: every variable is checked, and docs/operating.md says what the code does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from ui import settings
from ui.settings import VARIABLES, Settings, SettingsError

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FRONT = yaml.safe_load(README.split("---\n")[1])


def test_the_readme_has_the_table_of_the_code() -> None:
    assert settings.table() in (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")


def test_every_variable_that_is_read_stands_in_the_table() -> None:
    files = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    read = set()
    for name in files.stdout.split():
        if not name.startswith(("tests/", "tools/")):
            read |= set(re.findall(r"\bNEMODIFF_[A-Z_]+\b", (ROOT / name).read_text(encoding="utf-8")))
    assert read == {one.name for one in VARIABLES if one.name.startswith("NEMODIFF_")}
    assert {one.field for one in VARIABLES} - {None} == set(Settings.model_fields) - {"private", "zero"}


def test_defaults_are_those_of_the_table() -> None:
    made = Settings.from_environment({})
    for one in VARIABLES:
        if one.field and re.fullmatch(r"[\d.]+|smollm2.*", one.default):
            read = Settings.from_environment({one.name: one.default})
            assert getattr(made, one.field) == getattr(read, one.field), one.name
    assert (made.host, made.port, made.log, made.choose, made.proxies, made.zero) == (
        "127.0.0.1",
        7860,
        "text",
        True,
        0,
        False,
    )


def test_replicas_elsewhere_take_the_choice_away() -> None:
    made = Settings.from_environment({"NEMODIFF_SERVE_URL": "http://127.0.0.1:8000/"})
    assert (made.serve_url, made.choose) == ("http://127.0.0.1:8000", False)
    with pytest.raises(SettingsError, match="NEMODIFF_CHOOSE must be 0 with NEMODIFF_SERVE_URL"):
        Settings.from_environment({"NEMODIFF_SERVE_URL": "http://127.0.0.1:8000", "NEMODIFF_CHOOSE": "1"})
    for text in ("127.0.0.1:8000", "ftp://a", "http://", "http://a b", "http://me:secret@a"):
        with pytest.raises(SettingsError, match="NEMODIFF_SERVE_URL must be an address such as"):
            Settings.from_environment({"NEMODIFF_SERVE_URL": text})


def test_a_space_listens_to_all_behind_one_proxy_and_logs_json() -> None:
    made = Settings.from_environment({"SPACE_ID": "someone/space", "SPACES_ZERO_GPU": "true"})
    assert (made.host, made.log, made.choose, made.proxies, made.zero) == ("0.0.0.0", "json", False, 1, True)
    assert Settings.from_environment({"SPACE_ID": "a/b", "NEMODIFF_PROXIES": "2", "NEMODIFF_LOG": "text"}).proxies == 2


@pytest.mark.parametrize(
    ("environment", "private"),
    [
        ({}, True),
        ({"GRADIO_SERVER_NAME": "localhost"}, True),
        ({"GRADIO_SERVER_NAME": "0.0.0.0"}, False),
        ({"NEMODIFF_PROXIES": "1"}, False),  # whoever stands behind the proxy is served
        ({"GRADIO_SHARE": "True"}, False),
        ({"SPACE_ID": "a/b", "GRADIO_SERVER_NAME": "127.0.0.1"}, False),
    ],
)
def test_visitors_may_switch_the_checkpoint_only_where_there_are_no_strangers(
    environment: dict[str, str], private: bool
) -> None:
    made = Settings.from_environment(environment)
    assert (made.private, made.choose, made.log) == (private, private, "text" if private else "json")


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("NEMODIFF_TIME_LIMIT", "many", "a number from 1 to 86400"),
        ("NEMODIFF_TIME_LIMIT", "nan", "a number from 1 to 86400"),
        ("NEMODIFF_MAX_NEW_TOKENS", "1.5", "a whole number from 1 to 4096"),
        ("NEMODIFF_MAX_NEW_TOKENS", "9" * 5000, "a whole number from 1 to 4096"),
        ("NEMODIFF_QUEUE", "0", "a whole number from 1 to 1000"),
        ("NEMODIFF_DTYPE", "int4", "float32 or bfloat16 or int8"),
        ("NEMODIFF_DEVICE", "tpu", "cpu or cuda"),
        ("NEMODIFF_CHOOSE", "perhaps", "1 or 0"),
        ("GRADIO_SERVER_PORT", "0", "a whole number from 1 to 65535"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_in_one_sentence(name: str, value: str, wanted: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment({name: value})
    assert str(raised.value) == f"{name} must be {wanted}, not {value[:60]!r}."


def test_all_unusable_values_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment({"NEMODIFF_QUEUE": "x", "NEMODIFF_LOG": "xml"})
    assert len(str(raised.value).splitlines()) == 2


def test_the_front_matter_is_what_a_space_needs() -> None:
    assert FRONT["sdk"] == "gradio"
    assert (ROOT / FRONT["app_file"]).is_file()
    assert len(FRONT["short_description"]) <= 60
    assert FRONT["license"] == "apache-2.0"
    assert re.fullmatch(r"(cpu|t4|l4|l40s|a10g|a100|h100|zero)-\S+", FRONT["suggested_hardware"])
    assert {FRONT["colorFrom"], FRONT["colorTo"]} <= {
        "red",
        "yellow",
        "green",
        "blue",
        "indigo",
        "purple",
        "pink",
        "gray",
    }
    assert FRONT["title"] and FRONT["emoji"]


def test_the_front_matter_agrees_with_the_requirements() -> None:
    from packaging.requirements import Requirement

    pins = dict(re.findall(r"^([\w.-]+)==([\w.+]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M))
    assert FRONT["sdk_version"] == pins["gradio"]
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = {one.name: one.specifier for one in map(Requirement, filter(lambda x: x and x[0] != "#", lines))}
    assert wanted["gradio"].contains(FRONT["sdk_version"])
    assert all(wanted["torch"].contains(version) for version in ("2.8.0", "2.9.1", "2.10.0", "2.11.0"))  # ZeroGPU's
    assert FRONT["python_version"] == "3.12"  # one of ZeroGPU's two
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'requires-python = ">=3\.10"', project)


def test_spaces_comes_before_torch_in_the_entry_point() -> None:
    imports = re.findall(r"^\s*(?:import|from) (\w+)", (ROOT / "app.py").read_text(encoding="utf-8"), re.M)
    assert imports.index("spaces") < min(imports.index(name) for name in ("torch", "nemodiff", "ui"))


def test_the_image_copies_what_the_app_imports_and_settings_it_knows() -> None:
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    assert {"app.py", "assets", "nemodiff", "ui"} <= set(
        re.findall(r"[\w.]+", " ".join(re.findall(r"COPY (.*)", text)))
    )
    assert set(re.findall(r"\bNEMODIFF_\w+", text)) <= {one.name for one in VARIABLES}
