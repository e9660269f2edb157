"""The fused encoder layers: scores and gradients of transformers and peft, text by text and without padding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification

from tests.engine.models import tiny_encoder, wordpiece
from tunedesk.engine.batches import LabelBatch, label_batches
from tunedesk.engine.fast import kernels, native
from tunedesk.engine.fast.encoder import LeanClassifier, make_lean_classifier
from tunedesk.engine.label_rows import LabelRenderer
from tunedesk.engine.render import TokenRow
from tunedesk.engine.rows import Row

TEXTS = ("shares rose", "the bank said that profits fell by a tenth in the second quarter", "held", "costs rose again")
LABELS = ("a", "b", "c")
HEADS = ["classifier", "pre_classifier"]


@pytest.fixture(params=["native", "torch"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        pytest.skip("no C compiler here")
    return str(request.param)


def tuned(folder: Path) -> PeftModel:
    torch.manual_seed(1)  # head and adapters are drawn at random
    base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3, dtype=torch.float32)
    heads = [name for name in HEADS if hasattr(base, name)]
    config = LoraConfig(
        r=4, task_type="SEQ_CLS", target_modules="all-linear", modules_to_save=heads, init_lora_weights=False,
        exclude_modules=rf"({'|'.join(heads)})(\\..*)?",
    )  # fmt: skip
    return get_peft_model(base, config)


def rows() -> list[TokenRow]:
    data = [Row(n, text=text, labels=(LABELS[n % 3],)) for n, text in enumerate(TEXTS)]
    return LabelRenderer(wordpiece(), LABELS, "m").render(data, Path("rows.jsonl"))


def loss_of(fast: LeanClassifier, batch: LabelBatch) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(fast.scores(batch.inputs()).float(), batch.labels, reduction="sum")


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_that_scores_and_gradients_are_those_of_plain_peft(tmp_path: Path, family: str, kind: str) -> None:
    folder = tiny_encoder(tmp_path / "m", family)
    plain, model = tuned(folder).train(), tuned(folder).train()
    fast = make_lean_classifier(model)
    assert fast is not None
    assert fast._blocks, "the layers are not fused"
    (batch,) = label_batches(rows(), 8, 0)
    loss = loss_of(fast, batch)
    loss.backward()
    total = torch.zeros(())
    for row in rows():
        scores = plain(input_ids=torch.tensor([list(row.ids)])).logits
        total = total + torch.nn.functional.cross_entropy(scores, torch.tensor([row.label]))  # type: ignore[attr-defined]
    total.backward()
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)
    expected = dict(plain.named_parameters())
    compared = 0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-5)
            compared += 1
    assert compared > 20


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_that_dropout_drops_its_share_and_can_be_repeated(kind: str, share: float) -> None:
    x = torch.ones(200, 1000, dtype=torch.bfloat16)
    once, again, other = (kernels.dropout(x, share, seed) for seed in (3, 3, 4))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    kept = once != 0
    assert kept.float().mean().item() == pytest.approx(1 - share, abs=0.01)
    assert kept.float().mean(0).std().item() < 0.06  # no column is dropped more than chance would
    torch.testing.assert_close(once[kept].float(), torch.full((int(kept.sum()),), 1 / (1 - share)), rtol=1e-2, atol=0)
    assert (kept & (other != 0)).float().mean().item() == pytest.approx((1 - share) ** 2, abs=0.01)


def test_that_dropout_is_off_when_it_is_checked(tmp_path: Path) -> None:
    model = tuned(tiny_encoder(tmp_path / "m"))
    fast = make_lean_classifier(model)
    assert fast is not None
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    fast = LeanClassifier(model)
    (batch,) = label_batches(rows(), 8, 0)
    with torch.no_grad():
        model.train()
        noisy = [loss_of(fast, batch).item() for _ in range(2)]
        model.eval()
        still = [loss_of(fast, batch).item() for _ in range(2)]
    assert noisy[0] != noisy[1]
    assert still[0] == still[1]


def test_that_the_gradient_of_dropout_goes_the_same_way(tmp_path: Path, kind: str) -> None:
    """With dropout the loss is still a function: its slope along the gradient is the gradient's length."""
    model = tuned(tiny_encoder(tmp_path / "m"))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.2
    fast = make_lean_classifier(model.train())
    assert fast is not None
    (batch,) = label_batches(rows(), 8, 0)
    chosen = [item for name, item in model.named_parameters() if "lora_B" in name]

    def loss() -> torch.Tensor:
        torch.manual_seed(5)
        return loss_of(fast, batch)

    loss().backward()
    gradients = [item.grad.clone() for item in chosen]
    length = sum(float(item.square().sum()) for item in gradients)
    step = 1e-3 / length**0.5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for item, gradient in zip(chosen, gradients, strict=True):
                item.add_(gradient, alpha=sign * step)
            values.append(loss().item())
            for item, gradient in zip(chosen, gradients, strict=True):
                item.sub_(gradient, alpha=sign * step)
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(length, rel=2e-2)
