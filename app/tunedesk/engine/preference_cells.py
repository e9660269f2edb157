"""Columns of preferences: which hold the question, the better and the worse answer or a rating, and how they read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from tunedesk.core.problems import Problem

PROMPTS = ("prompt", "question", "instruction", "input", "query")
CHOSEN = ("chosen", "preferred", "better", "response_chosen", "accepted")
REJECTED = ("rejected", "dispreferred", "worse", "response_rejected")
ANSWERS = ("completion", "response", "answer", "output")
RATINGS = ("label", "rating", "thumbs", "good", "desirable")

_NEEDED: dict[Literal["preference", "rated"], dict[str, tuple[str, ...]]] = {
    "preference": {"chosen": CHOSEN, "rejected": REJECTED},
    "rated": {"completion": ANSWERS, "label": RATINGS},
}
_HINTS = {
    "prompt": r"prompt|quest|instr|query|input|user|asked",
    "chosen": r"chosen|prefer|better|best|accept|win|good|pos|upvot",
    "rejected": r"reject|worse|worst|bad|los|neg|dispref|downvot",
}
"""How columns are often called that hold these, to guess by."""

_RATINGS = {
    True: ("true", "1", "1.0", "good", "up", "yes", "desirable", "\N{THUMBS UP SIGN}"),
    False: ("false", "0", "0.0", "-1", "bad", "down", "no", "undesirable", "\N{THUMBS DOWN SIGN}"),
}
_SPEAKERS = re.compile(r"\n\n(Human|Assistant):")


def find_columns(
    names: Mapping[str, str], stated: Mapping[str, str]
) -> tuple[Literal["preference", "rated"] | None, dict[str, str]]:
    """How preferences are laid out in the columns `names` (lower case to real), and the roles that were not `stated`.

    Where both layouts are there, pairs are taken, unless an answer or a rating is stated.
    """
    taken = set(stated.values())
    free = {name: column for name, column in names.items() if column not in taken}
    for layout in sorted(_NEEDED, key=lambda layout: not stated.keys() & _NEEDED[layout].keys()):
        roles = {"prompt": PROMPTS, **_NEEDED[layout]}
        found = {
            role: column
            for role, known in roles.items()
            if role not in stated and (column := _first(known, free)) is not None
        }
        if _NEEDED[layout].keys() <= {*found, *stated}:
            return layout, found
    return None, {}


def _first(known: Iterable[str], names: Mapping[str, str]) -> str | None:
    return next((names[name] for name in known if name in names), None)


def unfit_columns(
    layout: Literal["preference", "rated"] | None, loss: str, names: Sequence[str], there: str, file: str
) -> Problem | None:
    """Why `loss` cannot learn from columns in this `layout`; None when it can. `there` lists the columns' `names`."""
    pairs = f"[data] columns = {_mapping(names)}"
    if layout == "preference" or (layout == "rated" and loss == "kto"):
        return None
    if layout == "rated":
        return Problem(
            code="data.rated",
            what=f"{loss.upper()} learns from pairs of a better and a worse answer, and these are single answers, each "
            "with a rating.",
            where=f"{file}.",
            found=there,
            fix=f'Set task.preference_loss = "kto", which learns from ratings; or state the columns of pairs: {pairs}.',
        )
    rated = ", nor any an answer with its rating" if loss == "kto" else ""
    needed = "Needed: 'chosen' and 'rejected', and 'prompt' where the question is apart"
    needed += "; or 'prompt', 'completion' and 'label'. " if loss == "kto" else ". "
    return Problem(
        code="data.columns",
        what=f"No columns hold a better and a worse answer{rated}.",
        where=f"{file}.",
        found=there,
        fix=f"{needed}Rename the columns, or state them: {pairs}.",
    )


def _mapping(names: Sequence[str]) -> str:
    """The columns that most look like pairs, as a run file states them; ``...`` where none does."""
    guess: dict[str, str] = {}
    for role in ("rejected", "chosen", "prompt"):  # "dispreferred" is not the preferred one
        free = (name for name in names if name not in guess.values() and re.search(_HINTS[role], name.lower()))
        guess[role] = next(free, "...")
    return "{ " + ", ".join(f'{role} = "{guess[role]}"' for role in ("prompt", "chosen", "rejected")) + " }"


def rating_of(value: Any) -> bool | None:
    """Whether `value` says good or bad; None when it says neither."""
    said = str(value).strip().lower()
    return next((good for good, words in _RATINGS.items() if said in words), None)


def messages_in(value: Any) -> list[Any] | None:
    """`value` as the list of messages that it is, a single one included; None for anything else, such as text parts."""
    listed = [value] if isinstance(value, dict) else value
    if isinstance(listed, list) and listed and isinstance(listed[0], dict) and {"role", "from"} & listed[0].keys():
        return listed
    return None


def dialogue_in(text: str) -> list[dict[str, str]] | None:
    """The messages of a text in the form of Bai et al. 2022 (Anthropic's HH-RLHF); None where it is none."""
    if not text.startswith("\n\nHuman:"):
        return None
    _, *parts = _SPEAKERS.split(text)
    names = {"Human": "user", "Assistant": "assistant"}
    return [{"role": names[name], "content": said.strip()} for name, said in zip(parts[::2], parts[1::2], strict=True)]


def shared(left: Sequence[Any], right: Sequence[Any]) -> int:
    """How many turns both begin with, the last of each not counted."""
    most = min(len(left), len(right)) - 1
    return next((place for place in range(most) if left[place] != right[place]), most)
