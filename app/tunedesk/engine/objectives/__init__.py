"""What is learned, task by task: one objective each."""

from tunedesk.engine.objectives.base import Measures, Objective, Precision, Tally, arithmetic
from tunedesk.engine.objectives.label import Label
from tunedesk.engine.objectives.next_token import NextToken
from tunedesk.engine.objectives.preference import Preference, balance
from tunedesk.engine.objectives.seq2seq import Seq2Seq

__all__ = [
    "Label", "Measures", "NextToken", "Objective", "Precision", "Preference", "Seq2Seq", "Tally", "arithmetic",
    "balance",
]  # fmt: skip
