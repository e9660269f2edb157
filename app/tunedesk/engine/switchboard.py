"""One loaded base on which adapters follow each other, whatever their methods and tasks, without a second copy of it.

A classifier is built on the body of the base with a head of its own. What an adapter changed is put back before the
next comes, so that each answers exactly as it does alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunedesk.core.adapters import CONFIG_FILE, WEIGHTS_FILE
from tunedesk.core.describe import ModelInfo
from tunedesk.core.events import Notice, Side
from tunedesk.core.hardware import Device
from tunedesk.core.problems import Problem, ProblemError, raise_if_any
from tunedesk.engine import inference
from tunedesk.engine.channel import Channel
from tunedesk.engine.generate import stop_tokens
from tunedesk.engine.label_head import LabelHead
from tunedesk.engine.saved import Saved, is_named, misfits, origin_of, read_saved
from tunedesk.engine.wiring import Wiring, left_packed


@dataclass(frozen=True)
class Voices:
    """A loaded model that answers as itself (``base``) and, with an adapter, as ``tuned``.

    `plain` says that conversations are handed over as one text, without a chat template. A classifier has a `head`, and
    only its tuned side. `adapter` is the folder of what is on the base.
    """

    model: Any
    tokenizer: Any
    info: ModelInfo
    sides: tuple[Side, ...]
    plain: bool
    stop: tuple[int, ...]
    device: str
    precision: str
    head: LabelHead | None = None
    adapter: Path | None = None

    @contextlib.contextmanager
    def speaking(self, side: Side) -> Iterator[Any]:
        """The model as `side`; the adapter is switched off for ``base``."""
        if side == "base" and "tuned" in self.sides:
            with self.model.disable_adapter():
                yield self.model
        else:
            yield self.model


class Switchboard:
    """The base of `info` on `device`, and on it one adapter at a time, or none.

    `head` is that of the first adapter: an encoder is loaded as its classifier, since it says nothing by itself.
    Raises `ProblemError` when the base cannot be loaded.
    """

    def __init__(
        self, info: ModelInfo, device: Device, storage: inference.Format, channel: Channel, head: LabelHead | None
    ) -> None:
        from tunedesk.engine import loading

        self._info, self._device, self._channel = info, device.name, channel
        self._tokenizer: Any = loading.load_tokenizer(info)
        writes = info.kind != "encoder"
        self._base = inference.load_base(info, loading.torch_device(device), storage, None if writes else head)
        self._precision = inference.precision_name(self._base)
        ways = (True, False) if info.has_chat_template else (True,)
        self._stops = {plain: stop_tokens(self._tokenizer, self._base, plain) for plain in ways if writes}
        _silence_generation_config(self._base)
        self._now: Voices | None = None
        self._saved: Saved | None = None
        self._before: Wiring | None = None
        self._fitting: set[tuple[object, ...]] = set()

    @property
    def voices(self) -> Voices:
        """What answers now."""
        assert self._now is not None, "nothing was put to use yet"
        return self._now

    def use(self, folder: Path | None) -> Voices:
        """Put the adapter in `folder` on the base in place of the one that is there; None leaves the base alone.

        Raises `ProblemError` when that cannot be; what was there is then at work as before.
        """
        saved = self._checked(folder) if folder else None
        if saved is None and self._info.kind == "encoder":
            raise ProblemError(_no_labels(self._info))
        before = self._saved
        try:
            self._put(saved)
        except ProblemError as error:
            self._put_back(before, error)
            raise
        return self.voices

    def _put(self, saved: Saved | None) -> None:
        self._now = self._attach(saved)
        self._saved = saved

    def _put_back(self, before: Saved | None, reason: ProblemError) -> None:
        """Put `before` to use again after `reason`; where its files are gone by now, the base alone."""
        try:
            self._put(before)
        except ProblemError as lost:
            self._put(None)
            raise ProblemError([*reason.problems, *lost.problems]) from reason

    def _checked(self, folder: Path) -> Saved:
        """What is in `folder`, which fits this base. Raises `ProblemError`."""
        saved = read_saved(folder)
        stamp = (
            folder,
            saved.head,
            *(item.stat().st_mtime_ns for item in (folder / WEIGHTS_FILE, folder / CONFIG_FILE)),
        )
        if stamp not in self._fitting:
            problems = misfits(saved.config, saved.shapes, saved.head, self._info)
            raise_if_any([item.model_copy(update={"where": item.where or str(folder)}) for item in problems])
            self._fitting.add(stamp)
        base = origin_of(folder).base
        if base and not is_named(self._info, base):
            text = f"This adapter was made for {base}. It fits {self._info.name} by its shapes alone."
            self._channel.emit(Notice(level="warn", text=text))
        return saved

    def _attach(self, saved: Saved | None) -> Voices:
        from tunedesk.engine import loading

        self._detach()
        if saved is None:
            sides: tuple[Side, ...] = () if self._info.kind == "encoder" else ("base",)
            return self._voices(self._base, self._info, sides, plain=not self._info.has_chat_template)
        head = saved.head
        model = loading.classifier_on(self._base, head) if head else self._base
        self._before = Wiring(model)
        try:
            with left_packed(model):
                tuned = inference.attach_adapter(model, saved.path)
        except BaseException as error:
            self._detach()
            if isinstance(error, MemoryError | RuntimeError):  # of others `attach_adapter` makes problems
                raise ProblemError(_no_room(saved, error)) from error
            raise
        _silence_generation_config(tuned)
        plain = not self._info.has_chat_template or origin_of(saved.path).task == "completion"
        info = inference.room_beside(self._info, tuned)
        return self._voices(tuned, info, ("tuned",) if head else ("base", "tuned"), plain, saved)

    def _detach(self) -> None:
        """Leave the base as it was loaded."""
        self._now = None
        if self._before:
            self._before.restore()
        self._before = None

    def _voices(
        self, model: Any, info: ModelInfo, sides: tuple[Side, ...], plain: bool, saved: Saved | None = None
    ) -> Voices:
        head, folder = (saved.head, saved.path) if saved else (None, None)
        stop = () if head else self._stops.get(plain, ())
        return Voices(model, self._tokenizer, info, sides, plain, stop, self._device, self._precision, head, folder)


def _silence_generation_config(model: Any) -> None:
    """Drop the sampling settings that came with the model: an answer uses those of its `Ask` alone."""
    from transformers import GenerationConfig

    for item in (model, getattr(model, "base_model", model), getattr(model, "get_base_model", lambda: model)()):
        if hasattr(item, "generation_config"):
            item.generation_config = GenerationConfig()


def _no_room(saved: Saved, error: Exception) -> Problem:
    lines = str(error).splitlines() or ["There is no memory left"]
    return Problem(
        code="memory.full",
        what="The adapter does not fit in the memory beside its base.",
        where=str(saved.path),
        found=lines[0][:200],
        fix="Close other programs, or choose a smaller adapter.",
    )


def _no_labels(info: ModelInfo) -> Problem:
    return Problem(
        code="chat.no_labels",
        what=f"{info.name} says nothing without an adapter: it knows no labels.",
        fix="Choose another adapter.",
    )
