"""The first estimate and the settings it leads to."""

import pytest

from tests.core.samples import data, device, llama_8b, model
from tunedesk.core.counts import lora_parameters
from tunedesk.core.families import FAMILIES
from tunedesk.core.hardware import GIB
from tunedesk.core.plan import PARTS, Plan, make_plan
from tunedesk.core.spec import RunSpec, parse_spec


def plan(text: str = "", *, big: bool = False, free: float = 12.0, longest: int = 300) -> Plan:
    return make_plan(parse_spec(text), llama_8b() if big else model(), data(longest=longest), device(free))


def test_that_lora_parameters_follow_the_papers_formula() -> None:
    # 30 blocks of SmolLM2: q, k, v, o and the three of the feed-forward network, rank 8.
    per_block = 8 * ((576 + 576) + (576 + 192) * 2 + (576 + 576) + (576 + 1536) * 3)
    assert lora_parameters(model(), 8, "all-linear") == 30 * per_block == 2_442_240
    assert lora_parameters(model(), 8, "attention") == 30 * 8 * ((576 + 576) * 2 + (576 + 192) * 2)
    assert lora_parameters(model(), 8, ("q_proj",)) == 30 * 8 * 1152


def test_that_parts_add_up_and_lie_in_the_band() -> None:
    estimate = plan().asked
    assert tuple(estimate.parts) == PARTS
    assert sum(estimate.parts.values()) == estimate.peak_bytes
    assert estimate.low_bytes < estimate.peak_bytes < estimate.high_bytes


def test_that_an_8b_model_fits_a_12_gib_card_only_in_4_bits() -> None:
    lora = plan(big=True, free=11.2)
    assert not lora.fits
    assert lora.suggestion_fits
    assert lora.recommended_method == "qlora"
    assert lora.settings["method.name"] == "qlora"
    assert plan("[method]\nname = 'qlora'", big=True, free=11.2).fits


def test_that_nf4_weights_take_about_half_a_byte_each() -> None:
    weights = plan("[method]\nname = 'qlora'", big=True).asked.parts["weights"]
    # 6.98e9 linear weights at 4.127 bits and 1.05e9 others at 16 bits.
    assert weights / GIB == pytest.approx(5.31, abs=0.05)


def test_that_the_changes_add_up_to_the_difference() -> None:
    made = plan("[training]\nmicro_batch_size = 8\nmax_length = 2048", big=True, free=20.0, longest=2048)
    assert not made.fits
    saved = sum(change.saved_bytes for change in made.changes)
    assert saved == made.asked.peak_bytes - made.suggested.peak_bytes


def test_that_applying_the_suggestion_fits_and_keeps_the_effective_batch() -> None:
    made = plan("[training]\nmicro_batch_size = 8\nmax_length = 2048", big=True, free=20.0, longest=2048)
    text = "\n".join(f"{key} = {value!r}".replace("True", "true") for key, value in made.settings.items())
    spec = parse_spec("[training]\nmicro_batch_size = 8\nmax_length = 2048", "x", text.replace(" ", "").splitlines())
    again = make_plan(spec, llama_8b(), data(longest=2048), device(20.0))
    assert again.fits
    assert again.asked.peak_bytes == made.suggested.peak_bytes
    assert again.resolved.micro_batch_size * again.resolved.gradient_accumulation_steps == 8


def test_that_a_model_that_cannot_fit_is_said_not_to() -> None:
    made = plan(big=True, free=2.0)
    assert not made.fits
    assert not made.suggestion_fits
    assert made.alternatives == ()


@pytest.mark.parametrize("free", [4.0, 8.0, 24.0])
def test_that_no_alternative_is_offered_that_does_not_fit(free: float) -> None:
    made = plan(big=True, free=free)
    assert all(item.peak_bytes <= free * GIB for item in made.alternatives)
    assert len(made.alternatives) <= 3


def test_that_every_auto_is_resolved_and_explicit_values_stay() -> None:
    made = plan("[training]\nlearning_rate = 3e-5\nmicro_batch_size = 2\nepochs = 2.0\neval_steps = 7")
    assert made.resolved.learning_rate == 3e-5
    assert made.resolved.micro_batch_size == 2
    assert made.resolved.gradient_accumulation_steps == 4
    assert made.resolved.eval_steps == 7
    assert made.resolved.steps_per_epoch == 40  # 315 rows in batches of 8
    assert made.resolved.total_steps == 80


def test_that_max_steps_wins_over_epochs() -> None:
    assert plan("[training]\nmax_steps = 20").resolved.total_steps == 20


def test_that_a_batch_is_never_larger_than_the_data() -> None:
    made = make_plan(RunSpec(), model(), data(rows=4), device(12.0))
    assert made.resolved.micro_batch_size * made.resolved.gradient_accumulation_steps <= 4


def test_that_precision_follows_the_hardware() -> None:
    slow = device(12.0).model_copy(update={"fast_bf16": False})
    assert make_plan(RunSpec(), model(), data(), slow).resolved.precision == "fp16"
    slow_cpu = device(12.0, kind="cpu").model_copy(update={"fast_bf16": False})
    assert make_plan(RunSpec(), model(), data(), slow_cpu).resolved.precision == "fp32"


def test_that_a_t5_is_never_computed_in_fp16() -> None:
    old = device(8.0).model_copy(update={"fast_bf16": False})
    assert make_plan(RunSpec(), model(), data(), old).resolved.precision == "fp16"
    assert make_plan(RunSpec(), FAMILIES["T5"], data(), old).resolved.precision == "fp32"


def test_that_a_t5_keeps_the_last_layer_of_its_feed_forward_whole_in_4_bits() -> None:
    parts = [
        make_plan(parse_spec(f"[method]\nname = '{name}'\n"), FAMILIES["T5"], data(), device(24.0)).asked.parts[
            "weights"
        ]
        for name in ("lora", "qlora")
    ]
    whole = 24 * 768 * 2048
    packed = sum(item.in_features * item.out_features * item.count for item in FAMILIES["T5"].linears) - whole
    assert parts[0] - parts[1] == pytest.approx(packed * 1.5, rel=0.02)
