"""Models of the Hugging Face Hub, by way of the Hub's own cache on this computer."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo as HubModel
from huggingface_hub.utils.tqdm import tqdm as hub_tqdm

from tunedesk.core.events import Progress, Stage
from tunedesk.core.hardware import GIB, disk_free
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.core.runs import cannot_write
from tunedesk.engine.channel import Channel, Stopped

_SIDE_FILES = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|chat_template|tekken)"
    r"\.json|chat_template\.jinja|(tokenizer|spiece|sentencepiece.*)\.(model|bpe\.model)|merges\.txt|vocab\.txt"
    r"|README\.md|LICEN[SC]E.*|adapter_config\.json",
)
_TransportError: type[Exception] = HfHubHTTPError.__bases__[0]
"""The base error of the HTTP library that the Hub's client is built on, whichever it is."""
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")


def cached_folder(repo: str, revision: str | None) -> Path | None:
    """The snapshot of `repo` in the Hub's cache, whole or not; None when there is none."""
    try:
        return Path(snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=["config.json"]))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None


def download(repo: str, revision: str | None, channel: Channel | None, check: Callable[[Path], list[Problem]]) -> Path:
    """Fetch config and tokenizer, then the safetensors, into the Hub's cache; returns the snapshot's folder.

    `check` names what is wrong with a folder that has no weights yet, before they are downloaded. Raises
    `ProblemError` (offline, unknown, gated, not safetensors, no room) and `Stopped`.
    """
    if channel:
        channel.emit(Stage(text=f"Looking up {repo} on the Hub"))
    with _explained(repo, revision):
        listing = HfApi().model_info(repo, revision=revision, files_metadata=True)
    sizes = {item.rfilename: item.size or 0 for item in listing.siblings or []}
    weights = wanted_weights(list(sizes))
    small = [name for name in sizes if _SIDE_FILES.fullmatch(name)]
    _fetch(repo, revision, small, sizes, None)  # by its name, which the cache then knows without asking the Hub
    folder = _snapshot(repo, listing)
    problems = check(folder)
    if not weights:
        problems.append(_no_weights(repo, list(sizes)))
    if problems:
        raise ProblemError(problems)
    _check_room(repo, sum(sizes[name] for name in weights))
    if channel:
        channel.emit(Stage(text=f"Downloading {repo}"))
    _fetch(repo, listing.sha, weights, sizes, channel)
    return folder


def wanted_weights(names: list[str]) -> list[str]:
    """Which of a repository's files hold the model that transformers loads."""
    if "model.safetensors" in names:
        return ["model.safetensors"]
    if "model.safetensors.index.json" in names:
        return ["model.safetensors.index.json", *sorted(name for name in names if _SHARD.fullmatch(name))]
    return []


def _snapshot(repo: str, listing: HubModel) -> Path:
    folder = cached_folder(repo, listing.sha)
    return folder or Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "snapshots" / str(
        listing.sha
    )


def _no_weights(repo: str, names: list[str]) -> Problem:
    ggufs = [name for name in names if name.endswith(".gguf")]
    pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if ggufs:
        return Problem(
            code="model.hub_gguf",
            what=f"{repo} holds GGUF files, not safetensors.",
            found=f"There is {', '.join(ggufs[:4])}.",
            fix="Download one of them and choose the file, or choose the model that they were made from.",
        )
    if pickles:
        return Problem(
            code="model.pickle",
            what=f"The weights of {repo} are pickle files, which can run code when they are opened.",
            found=f"There is {', '.join(pickles[:4])} and no safetensors file.",
            fix="TuneDesk opens safetensors only. Look for a version of the model that has them.",
        )
    return Problem(
        code="model.no_weights",
        what=f"{repo} has no weights that TuneDesk can load.",
        found=f"There is {', '.join(names[:6]) or 'nothing'}.",
        fix="Choose a model with model.safetensors.",
    )


def _check_room(repo: str, needed: int) -> None:
    free = disk_free(Path(constants.HF_HUB_CACHE))
    if free < needed + GIB // 8:
        raise ProblemError(
            Problem(
                code="disk.full",
                what=f"There is no room to download {repo}.",
                where=constants.HF_HUB_CACHE,
                found=f"It has {needed / GIB:.1f} GiB; {free / GIB:.1f} GiB are free.",
                fix="Free some space, or set HF_HOME to a folder on another disk.",
            )
        )


class _Counter:
    """Bytes that arrived so far, over all files; counted in the threads of the download."""

    def __init__(self) -> None:
        self.done = 0
        self.lock = threading.Lock()

    def add(self, count: float) -> None:
        with self.lock:
            self.done += int(count)


def _counting_bar(counter: _Counter) -> type[Any]:
    """A progress bar class that prints nothing and tells `counter` of the bytes that reach the disk."""

    class Bar(hub_tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._counts = kwargs.get("unit") == "B" and "ransfer" not in str(kwargs.get("name", ""))
            kwargs["disable"] = True
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            if self._counts:
                counter.add(n or 0)

    return Bar


def _fetch(repo: str, revision: str | None, names: list[str], sizes: dict[str, int], channel: Channel | None) -> None:
    """Download `names` in a thread, so that this one can report bytes and obey a `Stop` ten times a second."""
    counter = _Counter()
    failure: list[BaseException] = []

    def work() -> None:
        try:
            snapshot_download(repo, revision=revision, allow_patterns=names, tqdm_class=_counting_bar(counter))
        except BaseException as error:  # noqa: BLE001 (raised again below, in the thread that waits)
            failure.append(error)

    if not names:
        return
    total = sum(sizes[name] for name in names)
    thread = threading.Thread(target=work, name="hub-download", daemon=True)
    thread.start()
    told = -1
    while thread.is_alive():
        thread.join(0.1)
        if channel and channel.stop_asked:
            raise Stopped
        if channel and counter.done != told:
            told = counter.done
            channel.emit(Progress(done=min(told, total), total=total, unit="bytes"))
    if failure:
        with _explained(repo, revision):
            raise failure[0]
    if channel:
        channel.emit(Progress(done=total, total=total, unit="bytes"))


@contextmanager
def _explained(repo: str, revision: str | None) -> Iterator[None]:
    """Turn what the Hub's client raises into a `ProblemError`."""
    try:
        yield
    except GatedRepoError as error:
        raise ProblemError(_gated(repo)) from error
    except RevisionNotFoundError as error:
        raise ProblemError(_no_revision(repo, revision)) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ProblemError(_unknown(repo)) from error
    except HfHubHTTPError as error:
        raise ProblemError(_refused(repo, error)) from error
    except (
        OfflineModeIsEnabled,
        LocalEntryNotFoundError,
        EntryNotFoundError,
        _TransportError,
        ConnectionError,
    ) as error:
        raise ProblemError(_offline(repo, error)) from error
    except OSError as error:
        raise ProblemError(cannot_write(Path(constants.HF_HUB_CACHE), error)) from error


def not_here(repo: str) -> Problem:
    """The problem of a Hub model that may not be fetched now."""
    return Problem(
        code="hub.not_here",
        what=f"{repo} is not on this computer yet.",
        where=f"Not in the Hub's cache, {constants.HF_HUB_CACHE}.",
        fix=f"Choose it on the Model page, or run `tunedesk plan` with it, to download it; or `hf download {repo}`.",
    )


def _gated(repo: str) -> Problem:
    return Problem(
        code="hub.gated",
        what=f"The makers of {repo} ask you to accept their terms first.",
        where=f"https://huggingface.co/{repo}",
        fix="Open that page, log in and accept; then run `hf auth login` once on this computer and try again.",
    )


def _no_revision(repo: str, revision: str | None) -> Problem:
    return Problem(
        code="hub.no_revision",
        what=f"{repo} has no revision '{revision}'.",
        fix=f"Branches and tags are listed at https://huggingface.co/{repo}/tree/main.",
    )


def _unknown(repo: str) -> Problem:
    local = Path(repo).expanduser()
    return Problem(
        code="hub.unknown",
        what=f"The Hub has no model '{repo}' that you may see.",
        found=f"There is no folder {local.absolute()} either.",
        fix="Check the spelling (owner/name). Did you mean a folder? Then give its whole path. "
        "For a private model, run `hf auth login` first.",
    )


def _refused(repo: str, error: HfHubHTTPError) -> Problem:
    status = error.response.status_code
    return Problem(
        code="hub.refused",
        what=f"The Hub would not hand out {repo}.",
        found=f"It answered {status}. {str(error).splitlines()[0][:200]}",
        fix="Run `hf auth login` and try again." if status in (401, 403) else "Try again in a while.",
    )


def _offline(repo: str, error: BaseException) -> Problem:
    return Problem(
        code="hub.offline",
        what=f"{repo} is not on this computer, and the Hub cannot be reached.",
        found=str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__,
        fix="Check the connection, or choose the starter model or a folder: they need none.",
    )
