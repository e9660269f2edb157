"""From what the user names to a local folder of safetensors, config and tokenizer, and its description."""

from __future__ import annotations

import re
from pathlib import Path

from tunedesk.core import starter
from tunedesk.core.describe import ModelInfo
from tunedesk.core.events import Stage
from tunedesk.core.problems import Problem, ProblemError, raise_if_any
from tunedesk.core.spec import looks_local
from tunedesk.engine import gguf
from tunedesk.engine.channel import Channel
from tunedesk.engine.model_folder import check_folder, describe_config, describe_folder, has_weights

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")


def resolve(
    source: str,
    revision: str | None = None,
    channel: Channel | None = None,
    fetch: bool = True,
    config_only: bool = False,
) -> ModelInfo:
    """Make `source` a local folder and describe it; no weights are loaded.

    `source` is ``starter:chat``, ``starter:encoder``, a folder, a .gguf file (unpacked once, into the app's cache) or
    a Hub id; `revision` is a Hub branch, tag or commit. What is missing is downloaded only when `fetch` is true; a
    Hub model that is in the Hub's cache is used from there without asking the Hub. With `config_only` a folder whose
    weights are not there is described by its config.json (that needs torch), with `path` None.

    Raises `ProblemError` with everything that is wrong, and `Stopped` when a `Stop` ends a download.
    """
    if source.startswith("starter:"):
        return _starter(source, channel, fetch)
    path = Path(source).expanduser()
    if path.exists() or looks_local(source):
        if config_only and path.is_dir() and not has_weights(path):
            return describe_config(path.resolve(), source, path.resolve().name, "folder")
        return _local(source, path.absolute(), channel)
    if _HUB_ID.fullmatch(source):
        return _hub(source, revision, channel, fetch)
    raise ProblemError(
        Problem(
            code="model.missing",
            what=f"'{source}' is neither on this computer nor a name on the Hub.",
            fix="Give a folder, a .gguf file, a Hub id (owner/name) or starter:chat.",
        )
    )


def _starter(source: str, channel: Channel | None, fetch: bool) -> ModelInfo:
    name = source.removeprefix("starter:")
    item = starter.starter(name)

    def say(text: str) -> None:
        if channel:
            channel.emit(Stage(text=text))

    path = starter.fetch(name, say) if fetch else starter.find(name)
    if path is None:
        raise ProblemError(
            Problem(
                code="starter.not_here",
                what=f"The starter model {item.title} is not on this computer yet.",
                fix="`tunedesk starter` fetches it.",
            )
        )
    folder = gguf.convert(path, channel) if path.suffix == ".gguf" else path
    info = describe_folder(folder, source, item.title, "starter")
    return info.model_copy(update={"licence": info.licence or item.licence})


def _local(source: str, path: Path, channel: Channel | None) -> ModelInfo:
    if path.is_dir():
        return describe_folder(path.resolve(), source, path.resolve().name, "folder")
    if path.is_file() and path.suffix.lower() == ".gguf":
        return describe_folder(gguf.convert(path, channel), source, path.stem, "gguf")
    raise ProblemError(_no_model_file(path))


def _no_model_file(path: Path) -> Problem:
    if not path.exists():
        return Problem(
            code="model.missing",
            what=f"There is nothing at {path}.",
            found="" if path.parent.is_dir() else f"There is no folder {path.parent} either.",
            fix="Give a folder with a model, a .gguf file, a Hub id (owner/name) or starter:chat.",
        )
    if path.name.endswith((".safetensors", "config.json")):
        fix = f"Choose the folder that it is in: {path.parent}"
    elif path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"):
        fix = "Pickle files can run code when they are opened; TuneDesk opens safetensors and GGUF only."
    else:
        fix = "Give a folder with a model, a .gguf file, a Hub id (owner/name) or starter:chat."
    return Problem(code="model.not_a_model", what=f"{path.name} is a file, and no GGUF file.", where=str(path), fix=fix)


def _hub(source: str, revision: str | None, channel: Channel | None, fetch: bool) -> ModelInfo:
    from tunedesk.engine import hub

    folder = hub.cached_folder(source, revision)
    if folder and not check_folder(folder):
        return describe_folder(folder, source, source, "hub")
    if not fetch:
        raise ProblemError(hub.not_here(source))
    folder = hub.download(source, revision, channel, _check_without_weights)
    raise_if_any(check_folder(folder))
    return describe_folder(folder, source, source, "hub")


def _check_without_weights(folder: Path) -> list[Problem]:
    waiting = ("model.no_weights", "model.missing_shards")
    return [problem for problem in check_folder(folder) if problem.code not in waiting]
