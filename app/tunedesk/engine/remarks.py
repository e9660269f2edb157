"""The plain-words log of a training run: when to say something, and what."""

from __future__ import annotations

import time

from tunedesk.core.events import Notice
from tunedesk.engine.channel import Channel
from tunedesk.engine.checkpoints import Progress, megabytes

_MINUTE = 60.0
_WORSE = 1.01
"""Of the untouched model's loss: what is above it by less is chance."""


class Remarks:
    """Says what changed at once, and what merely goes on at most once a minute."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._last_routine = 0.0
        self._warned_rise = False
        self._warned_base = False

    def info(self, text: str, step: int | None = None) -> None:
        """Something that happened."""
        self._channel.emit(Notice(level="info", text=text, step=step))

    def good(self, text: str, step: int | None = None) -> None:
        """Something to be glad of."""
        self._channel.emit(Notice(level="good", text=text, step=step))

    def warn(self, text: str, step: int | None = None) -> None:
        """Something to look at."""
        self._channel.emit(Notice(level="warn", text=text, step=step))

    def epoch(self, number: int, step: int) -> None:
        """`number` (from 2) begins."""
        seen = {2: "once", 3: "twice"}.get(number, f"{number - 1} times")
        self.info(f"Epoch {number} begins. Every row has been seen {seen}.", step)

    def saved(self, size: int, step: int, every: int, asked: bool) -> None:
        """A checkpoint is on disk."""
        text = (
            f"Saved a checkpoint ({megabytes(size)}). A power cut would cost the steps since then, at most {every:,}."
        )
        if asked:
            self.info(f"Saved a checkpoint as asked ({megabytes(size)}).", step)
        else:
            self._routine(text, step)

    def checked(self, before: Progress, now: Progress, training_fell: bool) -> None:
        """A check on held-out rows is done; `before` and `now` are the states around it."""
        if now.last_eval is None:
            return
        step = now.step
        if now.best_step == step:
            self._new_best(before, now)
            self._warned_rise = False
        elif now.rises >= 3 and not self._warned_rise:
            self._warned_rise = True
            self.warn(
                f"Held-out loss has risen for {now.rises} checks, to {now.last_eval:.3f}: "
                f"the model begins to memorise. The best checkpoint, of step {now.best_step:,}, is kept.",
                step,
            )
        if now.base_loss is not None and now.last_eval > _WORSE * now.base_loss and not self._warned_base:
            self._warned_base = True
            self.warn(
                f"Held-out loss ({now.last_eval:.3f}) is above that of the untouched model ({now.base_loss:.3f}): "
                "it does worse than before. A lower learning rate may help.",
                step,
            )
        elif training_fell and now.rises == 0 and before.last_eval is not None and now.last_eval < before.last_eval:
            self._routine("Still learning: training and held-out loss fall together. No sign of memorising.", step)

    def _new_best(self, before: Progress, now: Progress) -> None:
        assert now.best_loss is not None
        if before.best_loss is not None:
            text = f"New best. Held-out loss went from {before.best_loss:.3f} to {now.best_loss:.3f}."
        elif now.base_loss is not None and now.best_loss < now.base_loss:
            text = f"Held-out loss is {now.best_loss:.3f}; the untouched model has {now.base_loss:.3f}."
        else:
            text = f"First check: held-out loss is {now.best_loss:.3f}."
        if (margin := now.metrics.get("reward_margin")) is not None:
            text += f" Better answers are {'ahead' if margin >= 0 else 'behind'} by {abs(margin):.3f}."
        self.good(f"{text} Kept as the best checkpoint.", now.step)
        self._last_routine = time.monotonic()

    def _routine(self, text: str, step: int) -> None:
        now = time.monotonic()
        if now - self._last_routine >= _MINUTE:
            self._last_routine = now
            self.info(text, step)
