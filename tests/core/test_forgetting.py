"""What the check for forgetting says."""

from __future__ import annotations

import math

import pytest

from tunedesk.core.forgetting import verdict


@pytest.mark.parametrize(
    ("after", "degree", "words"),
    [
        (3.01, "none", "as easy for it as before"),
        (2.80, "none", "even become 18% easier"),
        (3.05, "little", "5% harder for it than before"),
        (3.30, "some", "35% harder"),
        (3.60, "much", "82% harder"),
        (4.00, "much", "2.7 times as hard for it as before"),
        (30.0, "much", "beyond it now"),
        (math.nan, "much", "not a number"),
    ],
)
def test_that_a_rise_in_loss_is_told_in_words(after: float, degree: str, words: str) -> None:
    found, sentence = verdict("loss", 3.0, after)
    assert found == degree
    assert words in sentence


@pytest.mark.parametrize(
    ("drift", "degree", "words"),
    [(0.003, "none", "as good as unchanged"), (0.05, "little", "by 5%"), (0.2, "some", "by 20%"), (0.6, "much", "60%")],
)
def test_that_a_drift_is_told_in_words(drift: float, degree: str, words: str) -> None:
    found, sentence = verdict("drift", 0.0, drift)
    assert found == degree
    assert words in sentence


def test_that_advice_is_given_only_where_much_was_lost() -> None:
    assert "lower learning rate" not in verdict("loss", 3.0, 3.05)[1]
    assert "lower learning rate" in verdict("loss", 3.0, 3.9)[1]
