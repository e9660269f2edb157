"""What preferences cost, how fast they are learned, and what a run file says of them."""

from __future__ import annotations

import pytest

from tests.core.samples import data, device, model
from tunedesk.core.methods import default_learning_rate
from tunedesk.core.plan import Estimate, Plan, make_plan
from tunedesk.core.spec import parse_spec


def plan(loss: str, method: str, layout: str = "preference") -> Plan:
    text = f"""
[task]
kind = "preference"
preference_loss = "{loss}"
[method]
name = "{method}"
[training]
micro_batch_size = 2
"""
    found = data().model_copy(update={"layout": layout, "task": "preference"})
    return make_plan(parse_spec(text), model(), found, device(64.0))


def parts(loss: str, method: str, layout: str = "preference") -> dict[str, int]:
    asked: Estimate = plan(loss, method, layout).asked
    return asked.parts


def test_that_comparing_holds_once_more_what_is_trained() -> None:
    apart, alone = parts("dpo", "full"), parts("orpo", "full")
    assert apart["weights"] == 2 * alone["weights"]
    assert any("held twice" in reason for reason in plan("dpo", "full").reasons)
    assert not any("held twice" in reason for reason in plan("orpo", "full").reasons)
    apart, alone = parts("kto", "lora"), parts("orpo", "lora")
    assert apart["weights"] == alone["weights"]
    assert apart["adapter"] == 2 * alone["adapter"]
    assert parts("dpo", "prompt_tuning") == parts("orpo", "prompt_tuning")  # without its tokens it is what it was


def test_that_a_pair_takes_the_room_of_two_answers() -> None:
    pairs, single = parts("kto", "ia3"), parts("kto", "ia3", "rated")
    assert pairs["activations"] == 2 * single["activations"]


@pytest.mark.parametrize(
    ("name", "parameters", "rate"),
    [("full", 7e9, 1e-6), ("full", 70e9, 5e-7), ("lora", 70e9, 5e-6), ("lora", 1.3e8, 5e-5), ("qlora", 7e9, 1e-5)],
)
def test_that_preferences_are_learned_at_a_twentieth_of_the_usual_rate(
    name: str, parameters: float, rate: float
) -> None:
    assert default_learning_rate(name, int(parameters), "preference") == pytest.approx(rate)  # type: ignore[arg-type]
    assert default_learning_rate(name, int(parameters), "preference", "orpo") == pytest.approx(8 * rate)  # type: ignore[arg-type]


def test_that_dpo_and_kto_compare_and_orpo_does_not() -> None:
    sections = [
        parse_spec(f'[task]\nkind = "preference"\npreference_loss = "{loss}"').task for loss in ("dpo", "kto", "orpo")
    ]
    assert [section.compares for section in sections] == [True, True, False]
    assert sections[0].strictness == 0.1
    assert not parse_spec("").task.compares
