"""Numbers and problems in words."""

from __future__ import annotations

import math

import pytest
import samples

from tunedesk.core.hardware import GIB
from tunedesk.core.plan import Estimate
from tunedesk.core.problems import Problem
from tunedesk.gui import words


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.0 GiB"), (11.2 * GIB, "11.2 GiB"), (1234 * GIB, "1,234.0 GiB"), (0.04 * GIB, "0.0 GiB")],
)
def test_that_memory_is_said_in_gib_with_one_decimal(value, text):
    assert words.gib(value) == text


def test_that_tables_have_two_decimals():
    assert words.gib_number(7.49 * GIB, 2) == "7.49"


@pytest.mark.parametrize(
    ("value", "text"),
    [(-6.4 * GIB, "−6.4 GiB"), (0.5 * GIB, "+0.5 GiB"), (0, "0.0 GiB"), (-0.01 * GIB, "0.0 GiB")],
)
def test_that_a_change_has_its_sign(value, text):
    assert words.gib_change(value) == text


def test_that_a_band_is_half_its_width():
    estimate = Estimate(parts={}, peak_bytes=int(10.1 * GIB), low_bytes=int(9.8 * GIB), high_bytes=int(10.4 * GIB))
    assert words.band(estimate) == "10.1 GiB ± 0.3"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (170_384, "170 kB"),
        (98_362_432, "98.4 MB"),
        (11_400_000, "11.4 MB"),
        (999_900_000, "1.00 GB"),
        (2_890_000_000, "2.89 GB"),
        (214_000_000_000, "214 GB"),
    ],
)
def test_that_files_are_measured_in_thousands(value, text):
    assert words.file_size(value) == text


def test_that_a_transfer_is_told_in_one_unit():
    assert words.of_size(41_200_000, 98_400_000) == "41.2 of 98.4 MB"


@pytest.mark.parametrize(
    ("value", "text"), [(1.1416, "1.142"), (math.nan, "not a number"), (math.inf, "infinite"), (-0.5, "−0.500")]
)
def test_that_a_loss_has_three_decimals_or_a_word(value, text):
    assert words.loss(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(6.6e-5, "6.6e-5"), (2e-4, "2e-4"), (1e-3, "1e-3"), (0.0, "0"), (1.25e-4, "1.25e-4")]
)
def test_that_a_learning_rate_is_as_it_is_typed(value, text):
    assert words.rate(value) == text
    assert value == 0 or float(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0082, "0.82%"),
        (0.00005, "0.005%"),
        (0.38, "38%"),
        (1.0, "100%"),
        (0.0363, "3.63%"),
        (0.0, "0%"),
        (0.999, "100%"),
    ],
)
def test_that_a_share_has_three_digits_at_most(value, text):
    assert words.share(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0%"), (0.002, "<1%"), (0.074, "7%"), (0.71, "71%"), (0.9949, "99%"), (0.998, ">99%"), (1, "100%")],
)
def test_that_how_likely_something_is_has_no_decimals(value, text):
    assert words.percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.2, "0 s"),
        (48, "48 s"),
        (59.6, "1 min"),
        (1920, "32 min"),
        (3599, "1 h"),
        (5160, "1 h 26 min"),
        (math.inf, "not known"),
    ],
)
def test_that_a_duration_is_short(value, text):
    assert words.duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(999, "999"), (134_515_008, "134.5 million"), (4_022_468_096, "4.02 billion"), (999_900_000, "1.00 billion")],
)
def test_that_large_counts_have_a_word(value, text):
    assert words.large(value) == text


def test_that_counts_have_commas_and_the_right_number():
    assert words.several(1, "row", "rows") == "1 row"
    assert words.several(4812, "row", "rows") == "4,812 rows"
    assert words.tokens_per_second(1042.4) == "1,042 tokens/s"


def test_that_lists_end_with_and():
    assert words.listed([]) == ""
    assert words.listed(["a"]) == "a"
    assert words.listed(["a", "b", "c"]) == "a, b and c"


def test_that_a_problem_says_what_where_what_is_there_and_what_to_do():
    item = words.problem_item(samples.problem(), (("again", "Try again"),))
    assert item.severity == "bad"
    assert item.headline == "meta-llama/Llama-3.2-1B is gated."
    assert item.text == (
        "Hugging Face Hub. Its owner wants you to accept the licence first. "
        "Accept it on the model's page, then fetch it again."
    )
    assert item.actions == (("again", "Try again"),)


def test_that_parts_of_a_problem_become_sentences():
    item = words.problem_item(Problem(code="x", what="Empty.", where="a.csv", found="No rows"))
    assert item.text == "a.csv. No rows."
