"""The job that saves an adapter for use elsewhere, and calls it done only after an independent program read it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from tunedesk.core import starter
from tunedesk.core.adapters import about_of, library_dir
from tunedesk.core.describe import ModelInfo
from tunedesk.core.events import (
    Checked,
    DataDescribed,
    Export,
    Exported,
    Message,
    Notice,
    Sampling,
    Stage,
    read_events_file,
)
from tunedesk.core.problems import Problem, ProblemError, raise_if_any
from tunedesk.core.runs import RunFolder, cannot_write, open_run
from tunedesk.core.spec import MethodSection, ModelSection, RunSpec, TaskSection
from tunedesk.core.state import RunState
from tunedesk.engine import inference
from tunedesk.engine.card import CardFacts, library_card, model_card
from tunedesk.engine.channel import Channel, Stopped
from tunedesk.engine.classify import label_scores
from tunedesk.engine.generate import encode_prompt, encode_source, generate_answer, stop_tokens
from tunedesk.engine.label_head import LABELS_FILE, read_head
from tunedesk.engine.model_folder import read_licence
from tunedesk.engine.saved import misfits, origin_of, read_saved
from tunedesk.engine.sources import resolve

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
CARD = "README.md"

_OURS = (WEIGHTS, CONFIG, CARD, "chat_template.jinja", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model")
_PROMPTS = ("Hello! Who are you and what can you help me with?", "Where is my order, and how do I send it back?")
_PROBE_TEXT = "Grüße! 1,299.50 €\n\n  x = {'a': [1, 2]}  漢字 😀"
_SAME_TOKENS = Sampling(temperature=0, max_new_tokens=16)


@dataclass(frozen=True)
class Source:
    """What is exported: an adapter and the base that it belongs to, and the run that made it.

    An adapter of the library has no `run`, and its `spec` tells what is known: base, task, method and name.
    """

    run: RunFolder | None
    spec: RunSpec
    adapter: inference.FoundAdapter
    info: ModelInfo

    @property
    def base_folder(self) -> Path:
        """The base's folder on this computer."""
        assert self.info.path is not None
        return Path(self.info.path)

    @property
    def hub_id(self) -> str | None:
        """The base's name on the Hub, where it has one."""
        if self.info.origin == "hub":
            return self.info.source
        if self.info.origin == "starter":
            return starter.starter(self.info.source.removeprefix("starter:")).upstream
        return None

    @property
    def base(self) -> str:
        """What `from_pretrained` takes to load exactly this base, here."""
        return self.info.source if self.info.origin == "hub" else str(self.base_folder)


def export(job: Export, channel: Channel) -> Literal["completed", "stopped"]:
    """Write the adapter beside `job.to`, check it there, and only then move it into place.

    Emits `Checked` for each check and `Exported` at the end. Raises `ProblemError` when the place cannot take it or a
    check fails, and `Stopped`; either way nothing half done is left and what was at `job.to` stays as it was.
    """
    to = Path(job.to).expanduser().absolute()
    run, spec, adapter = _asked(job)
    check_place(to, run.path if run else adapter.path, job.replace)
    if adapter.step is not None:
        text = f"The run did not finish. What is exported is its checkpoint of step {adapter.step}."
        channel.emit(Notice(level="warn", text=text, step=adapter.step))
    source = Source(run, spec, adapter, resolve(spec.model.source, spec.model.revision, channel))
    if run is None:
        saved = read_saved(adapter.path)
        raise_if_any(misfits(saved.config, saved.shapes, saved.head, source.info))
    with _scratch_beside(to) as scratch:
        channel.emit(Stage(text="Writing the adapter"))
        write_export(source, scratch)
        _check(source, scratch, channel)
        if channel.stop_asked:
            raise Stopped
        size = sum(path.stat().st_size for path in scratch.iterdir())
        sha256 = _sha256(scratch / WEIGHTS)
        _move_into_place(scratch, to)
    channel.emit(Exported(path=str(to), bytes=size, sha256=sha256))
    return "completed"


def _asked(job: Export) -> tuple[RunFolder | None, RunSpec, inference.FoundAdapter]:
    """The run (of an adapter of the library none), what is known of it, and the adapter. Raises `ProblemError`."""
    if job.adapter is None:
        run = open_run(job.run or "")
        return run, run.spec(), inference.find_adapter(run)
    folder = Path(job.adapter).expanduser().absolute()
    saved, origin = read_saved(folder), origin_of(folder)
    if origin.run:
        return origin.run, origin.run.spec(), inference.FoundAdapter(folder, None)
    about = about_of(folder)
    if origin.base is None or saved.method is None:
        raise ProblemError(
            Problem(
                code="export.no_base",
                what="The adapter does not say which model it belongs to.",
                where=str(folder),
                fix="Import it for its model first.",
            )
        )
    spec = RunSpec(
        name=about.name if about else folder.name,
        model=ModelSection(source=origin.base, revision=origin.revision),
        task=TaskSection(kind=origin.task or ("classification" if saved.head else "chat")),
        method=MethodSection(name=(about and about.method) or saved.method),
    )
    return None, spec, inference.FoundAdapter(folder, None)


def check_place(to: Path, home: Path, replace: bool) -> None:
    """Raise `ProblemError` unless an export may be put at `to`, which is apart from its own `home`.

    An older export is replaced only when asked to.
    """
    resolved, library = to.resolve(), library_dir().resolve()
    if resolved == home or resolved in home.parents or home in resolved.parents:
        raise ProblemError(
            Problem(
                code="export.inside_run",
                what="An export cannot be put into its own run, or in place of it.",
                where=str(to),
                fix="Choose a folder outside the run.",
            )
        )
    if resolved == library or library in resolved.parents:
        raise ProblemError(
            Problem(
                code="export.inside_library",
                what="An export cannot be put into the library of adapters.",
                where=str(to),
                fix="Choose another folder.",
            )
        )
    if not to.exists():
        return
    if not to.is_dir():
        raise ProblemError(
            Problem(
                code="export.not_a_folder",
                what=f"{to.name} is a file, not a folder.",
                where=str(to),
                fix="Choose a new or empty folder.",
            )
        )
    try:
        there = sorted(path.name for path in to.iterdir())
    except OSError as error:
        raise ProblemError(cannot_write(to, error)) from error
    foreign = [name for name in there if not _is_ours(to / name)]
    if there and (not replace or foreign or CONFIG not in there):
        raise ProblemError(_not_empty(to, there, foreign if replace else []))


def _is_ours(path: Path) -> bool:
    return path.is_file() and (path.name in _OURS or path.suffix == ".json")


def _not_empty(to: Path, there: list[str], foreign: list[str]) -> Problem:
    shown = foreign or there
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    replaceable = CONFIG in there and not foreign
    return Problem(
        code="export.not_empty",
        what="The folder is not empty." if not foreign else "The folder holds more than an earlier export.",
        where=str(to),
        found=f"There is: {', '.join(shown[:4])}{more}.",
        fix="Choose another folder, or say that it may be replaced." if replaceable else "Choose another folder.",
    )


@contextlib.contextmanager
def _scratch_beside(to: Path) -> Iterator[Path]:
    """A new folder on the disk of `to`; it and the parents made for it are gone afterwards unless it was moved."""
    made: list[Path] = []
    scratch: Path | None = None
    try:
        parent = to.parent
        missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir()
            made.insert(0, folder)
        scratch = Path(tempfile.mkdtemp(dir=parent, prefix=f".{to.name}-"))
        yield scratch
    except OSError as error:
        raise ProblemError(cannot_write(to, error)) from error
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):  # it holds the export now
                folder.rmdir()


def write_export(source: Source, folder: Path) -> None:
    """Write adapter, configuration, tokenizer, chat template and card into `folder`. Raises `OSError`."""
    shutil.copyfile(source.adapter.path / WEIGHTS, folder / WEIGHTS)
    config = json.loads((source.adapter.path / CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = source.base
    config["revision"] = source.spec.model.revision if source.info.origin == "hub" else None
    config["inference_mode"] = True
    if config.get("tokenizer_name_or_path"):  # what a prompt started as; not read again
        config["tokenizer_name_or_path"] = source.base
    labels = source.adapter.path / LABELS_FILE
    if labels.exists():
        shutil.copyfile(labels, folder / labels.name)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _tokenizer(source, source.base_folder).save_pretrained(str(folder))
    card = model_card(_facts(source)) if source.run else library_card(_facts(source))
    (folder / CARD).write_text(card, encoding="utf-8")


def _tokenizer(source: Source, folder: Path) -> Any:
    """The tokenizer in `folder`, the base's own or its copy. Raises `ProblemError`."""
    from tunedesk.engine.loading import load_tokenizer

    return load_tokenizer(source.info.model_copy(update={"path": str(folder)}))


def _facts(source: Source) -> CardFacts:
    from tunedesk.engine.methods import loader

    return CardFacts(
        title=source.spec.name or f"{source.info.name}, {Path(source.spec.data.train.removeprefix('starter:')).stem}",
        spec=source.spec,
        state=source.run.state() if source.run else RunState(),
        info=source.info,
        base=source.base,
        hub_id=source.hub_id,
        data_sha256=_data_sha256(source.run) if source.run else None,
        versions=_versions(source.run),
        step=source.adapter.step,
        head=read_head(source.adapter.path),
        loader=loader(source.spec.method.name),
    )


def _versions(run: RunFolder | None) -> dict[str, str]:
    """Of the libraries that trained the adapter, from the run's record; else of those that are here."""
    recorded: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        found = json.loads("" if run is None else run.environment_file.read_text(encoding="utf-8"))["versions"]
        recorded = {str(name): str(value) for name, value in found.items()}
    names = ("torch", "transformers", "peft")
    return {name: recorded.get(name) or version(name) for name in names}


def _data_sha256(run: RunFolder) -> str | None:
    """The hash of the training file as it was when it was trained on, from the run's record."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(run.environment_file.read_text(encoding="utf-8"))["data"]["sha256"])
    if run.events_file.exists():
        for event in read_events_file(run.events_file):
            if isinstance(event, DataDescribed):
                return event.info.sha256
    return None


class _Checks:
    """Reports each check; the first that fails ends the export."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def report(self, name: str, passed: bool, detail: str) -> None:
        """Emit `Checked`. Raises `ProblemError` when the check failed and `Stopped` when a `Stop` has come."""
        self._channel.emit(Checked(name=name, passed=passed, detail=detail))
        if not passed:
            raise ProblemError(
                Problem(
                    code="export.check_failed",
                    what="The export did not pass its check and was thrown away.",
                    where=name,
                    found=detail,
                    fix="Nothing at the target was changed. Please report this with the log.",
                )
            )
        if self._channel.stop_asked:
            raise Stopped


def _check(source: Source, folder: Path, channel: Channel) -> None:
    """Reopen what was written with plain transformers and peft and compare it with the run's adapter."""
    from tunedesk.engine.loading import torch_device

    checks = _Checks(channel)
    channel.emit(Stage(text="Checking the adapter"))
    checks.report("Written", *_check_files(folder))
    checks.report("Same base", *_check_base(source))
    checks.report("Same weights", *_check_weights(source.adapter.path, folder))
    checks.report("Tokenizer and chat template", *_check_tokenizer(source, folder))
    checks.report("Licence and card", *_check_card(source, folder))
    channel.emit(Stage(text="Reopening it with transformers and peft"))
    device = torch_device(inference.pick_device(source.spec.training.device))
    head = read_head(folder)
    base = inference.load_base(source.info, device, inference.choose_format(source.info, device), head)
    model = inference.attach_adapter(base, folder)
    checks.report("Reopened by peft", *_check_reopened(model, folder))
    channel.emit(Stage(text="Comparing answers"))
    check = _check_labels if head else _check_answers
    checks.report("Same answers", *check(model, source, folder))


def _check_files(folder: Path) -> tuple[bool, str]:
    missing = [name for name in (WEIGHTS, CONFIG, CARD, "tokenizer_config.json") if not (folder / name).is_file()]
    if missing:
        return False, f"Missing: {', '.join(missing)}."
    files = list(folder.iterdir())
    return True, f"{len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB."


def _check_base(source: Source) -> tuple[bool, str]:
    """Whether the base is, byte for byte, the one that the run began with."""
    from tunedesk.engine.records import weight_hashes

    recorded: object = None
    if source.run is None:
        return True, "The library does not record the base's files; its shapes fit."
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        recorded = json.loads(source.run.environment_file.read_text(encoding="utf-8"))["model"]["files"]
    if not recorded:
        return True, "The run does not record its base's files; nothing to compare."
    if recorded != weight_hashes(source.base_folder):
        return False, f"The weights in {source.base_folder} are not those that the run was trained on."
    return True, "The base's files are those that the run was trained on."


def _check_weights(ours: Path, theirs: Path) -> tuple[bool, str]:
    import torch
    from safetensors.torch import load_file

    left, right = load_file(ours / WEIGHTS), load_file(theirs / WEIGHTS)
    if left.keys() != right.keys():
        return False, f"{len(left.keys() ^ right.keys())} tensors are in one file only."
    different = [name for name in left if not torch.equal(left[name], right[name])]
    if different:
        return False, f"{len(different)} of {len(left)} tensors differ, the first is {different[0]}."
    if not all(bool(torch.isfinite(tensor).all()) for tensor in left.values()):
        return False, "The adapter holds values that are no numbers (NaN or infinite)."
    return True, f"All {len(left)} tensors are equal to those that were exported."


def _check_tokenizer(source: Source, folder: Path) -> tuple[bool, str]:
    ours, theirs = _tokenizer(source, source.base_folder), _tokenizer(source, folder)
    if ours.get_vocab() != theirs.get_vocab():
        return False, "The vocabularies differ."
    if ours.chat_template != theirs.chat_template:
        return False, "The chat templates differ."
    if ours(_PROBE_TEXT)["input_ids"] != theirs(_PROBE_TEXT)["input_ids"]:
        return False, "The same text gives other tokens."
    if ours.special_tokens_map != theirs.special_tokens_map:
        return False, "The special tokens differ."
    return True, f"{len(ours):,} tokens, {'a' if ours.chat_template else 'no'} chat template; equal to the base's."


def _check_card(source: Source, folder: Path) -> tuple[bool, str]:
    stated, inherited = read_licence(folder), source.info.licence
    if stated != inherited:
        return False, f"The card states the licence {stated}, the base has {inherited}."
    if source.info.name not in (text := (folder / CARD).read_text(encoding="utf-8")) and source.base not in text:
        return False, "The card does not name the base."
    return (
        True,
        f"Licence {inherited}, from the base." if inherited else "The base states no licence; the card says so.",
    )


def _check_reopened(model: Any, folder: Path) -> tuple[bool, str]:
    """Whether every tensor of the file arrived in the model, and the model has no adapter weight beside them."""
    import torch
    from safetensors.torch import load_file

    from tunedesk.engine.methods import saved_weights

    stored = load_file(folder / WEIGHTS)
    loaded = saved_weights(model)
    if stored.keys() != loaded.keys():
        return False, f"{len(stored.keys() ^ loaded.keys())} adapter weights did not find their place."
    kept = {name: item.detach().cpu() for name, item in loaded.items()}  # some are held in the base's number format
    wrong = [name for name in stored if not torch.equal(stored[name].to(kept[name].dtype), kept[name])]
    if wrong:
        return False, f"{len(wrong)} adapter weights arrived changed."
    return True, f"{sum(tensor.numel() for tensor in stored.values()):,} weights, each in its place."


def _check_answers(model: Any, source: Source, folder: Path) -> tuple[bool, str]:
    """Greedy tokens and the scores of an answer's first token, with the exported adapter and with the run's."""
    from tunedesk.engine.methods import put_saved

    tokenizer = _tokenizer(source, folder)
    plain = source.spec.task.kind == "completion" or not tokenizer.chat_template
    stop = stop_tokens(tokenizer, model, plain)
    tokens, worst = 0, 0.0
    for text in _PROMPTS:
        asked = [Message(role="user", content=text)]
        reads = source.info.kind == "seq2seq"
        prompt = encode_source(tokenizer, asked) if reads else encode_prompt(tokenizer, asked, plain)
        answers, scores = [], []
        for place in (folder, source.adapter.path):
            put_saved(model, place)
            scores.append(_next_scores(model, prompt))
            answer = generate_answer(
                model,
                tokenizer,
                prompt,
                _SAME_TOKENS,
                stop,
                inference.room_beside(source.info, model).context_length,
                say=lambda _: None,
                stop_asked=lambda: False,
            )
            answers.append(answer.token_ids)
        difference = float((scores[0] - scores[1]).abs().max())
        if not math.isfinite(difference):
            return False, f"The model's scores are not numbers for: {text}"
        worst = max(worst, difference)
        tokens += len(answers[0])
        if answers[0] != answers[1]:
            return False, f"The exported adapter answers differently to: {text}"
    return (
        worst == 0.0,
        f"{len(_PROMPTS)} greedy answers, {tokens} tokens: equal. Largest difference in scores: {worst:g}.",
    )


def _check_labels(model: Any, source: Source, folder: Path) -> tuple[bool, str]:
    """The scores of the labels of a few texts, with the exported adapter and with the run's."""
    import torch

    from tunedesk.engine.methods import put_saved

    if read_head(folder) != read_head(source.adapter.path):
        return False, "The labels have other names, or the number another scale."
    tokenizer = _tokenizer(source, folder)
    info = inference.room_beside(source.info, model)
    worst = 0.0
    texts = (*_PROMPTS, _PROBE_TEXT)
    for text in texts:
        scores = []
        for place in (folder, source.adapter.path):
            put_saved(model, place)
            with torch.inference_mode():
                scores.append(label_scores(model, tokenizer, text, "", info))
        worst = max(worst, float((scores[0] - scores[1]).abs().max()))
        if not math.isfinite(worst):
            return False, f"The model's scores are not numbers for: {text}"
    return worst == 0.0, f"{len(texts)} texts labelled. Largest difference in scores: {worst:g}."


def _next_scores(model: Any, prompt: list[int]) -> Any:
    import torch

    ids = torch.tensor([prompt], device=model.device)
    first = {}
    if model.config.is_encoder_decoder:
        first = {"decoder_input_ids": torch.full_like(ids[:, :1], model.config.decoder_start_token_id)}
    with torch.inference_mode():
        return model(input_ids=ids, **first).logits[0, -1].float()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _move_into_place(scratch: Path, to: Path) -> None:
    """Rename `scratch` to `to`; what was there is put back when that fails. Raises `OSError`."""
    scratch.chmod(0o755)
    old = None
    if to.exists():
        old = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}-old-"))
        to.rename(old / "export")
    try:
        scratch.rename(to)
    except OSError:
        if old:
            (old / "export").rename(to)
            old.rmdir()
        raise
    if old:
        shutil.rmtree(old, ignore_errors=True)
