"""What is wrong, where, what is there now, and what to do: the one form in which trouble reaches a person."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict


class Problem(BaseModel):
    """One thing that a person can mend.

    `code` is a stable name for programs (``data.no_answer``); the other fields are sentences for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    code: str
    what: str
    where: str = ""
    found: str = ""
    fix: str = ""

    def lines(self) -> list[str]:
        """The parts that are not empty, `what` first."""
        return [part for part in (self.what, self.where, self.found, self.fix) if part]

    def __str__(self) -> str:
        return " ".join(self.lines())


class ProblemError(Exception):
    """Raised with every problem that was found, never only the first."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def raise_if_any(problems: Sequence[Problem]) -> None:
    """Raise `ProblemError` with all of `problems` unless there are none."""
    if problems:
        raise ProblemError(problems)


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """`Did you mean 'x'?` for the closest of `choices`, or all of them listed when none is close."""
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Known here: {', '.join(known)}." if known else ""
