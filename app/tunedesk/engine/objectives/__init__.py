"""What is learned, task by task: one objective each."""

from tunedesk.engine.objectives.base import Measures, Objective, Precision, Tally, arithmetic
from tunedesk.engine.objectives.label import Label
from tunedesk.engine.objectives.next_token import NextToken

__all__ = ["Label", "Measures", "NextToken", "Objective", "Precision", "Tally", "arithmetic"]
