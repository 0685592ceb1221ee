"""A hub repository → a local folder, resumed where a broken download stopped. No remote code is fetched or run."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

from nemodiff.errors import CheckpointError

_FILES = ["*.json", "*.jinja", "*.safetensors"]
#: Other formats of the same weights that a repository may hold besides.
_NOT = ["consolidated*.safetensors"]


def fetch(
    name: str,
    report: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """The folder of hub repository "owner/name", or "owner/name@revision" (a branch, a tag or a commit).

    The licence's address and the size are told before anything is fetched. What is in the hub's cache is not fetched
    again, and does without a network (HF_HUB_OFFLINE=1 insists on that). progress: called with the bytes done and in
    all, several times per file; a CheckpointError that it raises ends the fetch, and what arrived is kept. Raises
    CheckpointError: one sentence.
    """
    from huggingface_hub import errors, snapshot_download

    repository, _, revision = name.partition("@")
    wanted = _wanted(revision)
    try:
        _fetch_missing(repository, wanted, report, progress)
        return Path(snapshot_download(repository, **wanted))
    except (errors.HTTPError, errors.EntryNotFoundError, OSError, RuntimeError) as error:
        raise CheckpointError(_explain(repository, revision, error)) from error
    except errors.HFValidationError as error:
        raise CheckpointError(f"{repository!r} is no name that the hub could have: give owner/name.") from error


def _wanted(revision: str) -> dict:
    """What of a repository is wanted, as snapshot_download takes it."""
    return {"revision": revision or None, "allow_patterns": _FILES, "ignore_patterns": _NOT, "tqdm_class": _silent()}


def cached(name: str) -> Path | None:
    """The folder of a repository in the hub's cache, looked up without a network; None when it is not there."""
    from huggingface_hub import errors, snapshot_download

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, local_files_only=True, **_wanted(revision)))
    except (errors.EntryNotFoundError, errors.HFValidationError, OSError):
        return None


def _fetch_missing(
    repository: str, wanted: dict, report: Callable[[str], None], progress: Callable[[int, int], None]
) -> None:
    """Bring the files that are not there into the hub's cache, so that `snapshot_download` has only to link them.

    snapshot_download itself begins a broken file anew, and a shard has gigabytes.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import DryRunError

    try:
        files = snapshot_download(repository, dry_run=True, **wanted)
    except DryRunError:  # no network: the cache may do, and if not the download itself says why
        return
    missing = [file for file in files if file.will_download]
    total = sum(file.file_size or 0 for file in missing)
    if not missing:
        return
    report(
        f"Fetching {repository} from the Hugging Face hub, {total / 1e9:.1f} GB. "
        f"Its licence: https://huggingface.co/{repository}"
    )
    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.is_dir())).free
    if total > free:
        raise CheckpointError(
            f"{repository} takes {total / 1e9:.1f} GB and the hub's cache has {free / 1e9:.1f} GB of disk left: "
            "free some or set HF_HOME to another disk."
        )
    count = _Progress(repository, total, report, progress)
    for file in missing:
        _fetch_file(repository, file.filename, file.commit_hash, count)


def _fetch_file(repository: str, filename: str, commit: str, progress: _Progress) -> None:
    """Fetch one file as a blob of the hub's cache, going on after what a broken attempt left."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    url = hf_hub_url(repository, filename, revision=commit)
    metadata = get_hf_file_metadata(url)
    cache, folder = Path(constants.HF_HUB_CACHE), repo_folder_name(repo_id=repository, repo_type="model")
    if metadata.etag is None:
        raise CheckpointError(f"The hub names no content for {filename} of {repository}: try again later.")
    blob = cache / folder / "blobs" / metadata.etag
    partial, lock = blob.with_name(f"{blob.name}.incomplete"), cache / ".locks" / folder / f"{blob.name}.lock"
    for path in (blob, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    same_host = urlsplit(url).netloc == urlsplit(metadata.location).netloc
    with WeakFileLock(lock):
        if blob.exists():  # two names of one content, or another process was faster
            progress.add(metadata.size or 0)
            return
        begin = partial.stat().st_size if partial.exists() else 0
        if metadata.size is not None and begin > metadata.size:
            partial.unlink()
            begin = 0
        progress.add(begin)
        with partial.open("ab") as file:
            http_get(
                metadata.location,
                file,
                resume_size=begin,
                headers=build_hf_headers() if same_host else {},  # a login is for the hub, not for where it points
                expected_size=metadata.size,
                tqdm_class=cast(type, progress.bar),  # it is called only
            )
        partial.rename(blob)


class _Progress:
    """Counts fetched bytes, hands them on, and reports a line every twentieth of `total`."""

    def __init__(
        self, name: str, total: int, report: Callable[[str], None], progress: Callable[[int, int], None]
    ) -> None:
        self._name, self._total, self._report, self._progress = name, total, report, progress
        self._done = self._told = 0

    def add(self, count: float | None) -> None:
        self._done += int(count or 0)
        self._progress(self._done, self._total)
        step = 20 * self._done // max(self._total, 1)
        if step > self._told:
            self._told = step
            self._report(f"{self._name}: {self._done / 1e9:.1f} of {self._total / 1e9:.1f} GB")

    def bar(self, *_args: object, **_kwargs: object) -> nullcontext[SimpleNamespace]:
        """What huggingface_hub calls for a bar of one file: the little of tqdm that http_get uses."""
        return nullcontext(SimpleNamespace(update=self.add))


def _silent() -> type:
    """A tqdm that draws nothing: progress is reported by `_Progress`."""
    from tqdm.auto import tqdm

    class Silent(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs | {"disable": True})

    return Silent


def _explain(repository: str, revision: str, error: BaseException) -> str:
    """What went wrong at the hub and what to do, in one sentence."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__:
        error = error.__cause__  # it looked in the cache because the hub had said no
    if isinstance(error, errors.GatedRepoError):
        page = f"https://huggingface.co/{repository}"
        return f"{repository} is gated: accept its licence at {page} and log in with `hf auth login`."
    if isinstance(error, errors.DisabledRepoError):
        return f"{repository} has been withdrawn from the hub; choose another checkpoint."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} has no revision {revision!r}: check the part after the @."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"The hub has no repository {repository!r}, or it is private: check the name and your login."
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
        return f"The hub refuses {repository} to this login: check your access, then log in with `hf auth login`."
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"The disk is full, so {repository} could not be fetched: free some; what arrived is kept."
    return f"{repository} could not be fetched from the hub; check the network and start again, what arrived is kept."
