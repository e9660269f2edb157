"""The library: what is taken in, what is refused, and sums of adapters that are exact."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.engine.adapters import COLOURS, MOODS, of, saved, say, tell
from tests.engine.jobs import do, files_under
from tests.engine.models import tiny_encoder, tiny_model, tiny_run
from tunedesk.core.adapters import find_adapter_called, library_dir, list_adapters
from tunedesk.core.events import (
    AdapterAdded,
    Chat,
    ChatAnswer,
    Checked,
    CombineAdapters,
    Event,
    Export,
    Exported,
    Finished,
    ImportAdapter,
    Notice,
)

EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TASK: dict[str, Any] = {"task_type": "CAUSAL_LM"}

PEFT: dict[str, Any] = {
    "lora": LoraConfig(r=4, target_modules="all-linear", **TASK),
    "rank_pattern": LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], rank_pattern={"q_proj": 2}, alpha_pattern={"q_proj": 5}, **TASK
    ),
    "rslora": LoraConfig(r=4, target_modules=EVERY, use_rslora=True, layers_to_transform=[1], **TASK),
    "dora": LoraConfig(r=4, target_modules=["q_proj"], use_dora=True, **TASK),
    "embedding": LoraConfig(r=2, target_modules=["embed_tokens", "v_proj"], **TASK),
    "head": LoraConfig(r=2, target_modules=["v_proj"], modules_to_save=["lm_head"], **TASK),
    "adalora": AdaLoraConfig(init_r=4, target_r=2, total_step=10, target_modules=["q_proj"], **TASK),
    "ia3": IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], **TASK),
    "prefix": PrefixTuningConfig(num_virtual_tokens=3, **TASK),
    "prefix_projected": PrefixTuningConfig(num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=8, **TASK),
    "prompt": PromptTuningConfig(num_virtual_tokens=3, **TASK),
    "p_tuning": PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=8, **TASK),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("library") / "model")


def by_peft(model: Path, folder: Path, config: Any, seed: int = 3) -> Path:
    """What peft saves of an adapter with random numbers."""
    torch.manual_seed(seed)
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(str(model)), config)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    tuned.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def add(source: Path, model: Path | str, name: str | None = None) -> list[Event]:
    return do(ImportAdapter(source=str(source), model=str(model), name=name))


def codes(events: list[Event]) -> list[str]:
    return [problem.code for problem in of(events, Finished)[0].problems]


def scores(model: Path, *folders: Path) -> torch.Tensor:
    """The logits of plain transformers and peft."""
    base = AutoModelForCausalLM.from_pretrained(str(model))
    tuned = PeftModel.from_pretrained(base, str(folders[0])) if folders else base
    with torch.inference_mode():
        found: torch.Tensor = tuned.eval()(input_ids=torch.arange(5, 25)[None]).logits
    return found


@pytest.mark.parametrize("kind", PEFT)
def test_that_what_peft_saved_is_taken_and_answers_as_with_peft(model: Path, tmp_path: Path, kind: str) -> None:
    source = by_peft(model, tmp_path / "made elsewhere", PEFT[kind])
    (added,) = of(add(source, model), AdapterAdded)
    assert added.name == "made elsewhere"
    place = Path(added.path)
    assert place.parent == library_dir()
    for name in ("adapter_model.safetensors", "adapter_config.json", "README.md"):
        assert (place / name).read_bytes() == (source / name).read_bytes()
    (adapter,) = list_adapters(str(model))
    assert (adapter.path, adapter.origin, adapter.task) == (place, "imported", "chat")
    assert adapter.bytes == added.bytes
    question = say(1, "Where is my order?", "base", "tuned")
    base, tuned = of(do(Chat(model=str(model), adapter=str(place)), [question]), ChatAnswer)
    assert base.token_ids != tuned.token_ids
    assert not torch.equal(scores(model), scores(model, place)[:, -20:])


@pytest.mark.parametrize(
    "method", ["lora", "pissa", "adalora", "ia3", "prefix", "p_tuning", "houlsby", "compacter", "last_layer", "full"]
)
@pytest.mark.parametrize("head", [None, COLOURS], ids=["text", "labels"])
def test_that_what_this_program_saved_is_taken(model: Path, tmp_path: Path, method: str, head: Any) -> None:
    source = saved(model, tmp_path / "source", method, head)
    (added,) = of(add(source, model, "Ours"), AdapterAdded)
    adapter = find_adapter_called("ours")
    assert adapter.task == ("classification" if head else "chat")
    assert files_under(Path(added.path)).items() > files_under(source).items()


@pytest.mark.parametrize("pooled", [True, False])
def test_that_an_encoders_adapter_is_taken_with_its_pooler(tmp_path: Path, pooled: bool) -> None:
    model = tiny_encoder(tmp_path / "model", pooled=pooled)
    for method in ("lora", "bitfit", "houlsby", "prefix"):
        source = saved(model, tmp_path / method, method, MOODS)
        assert codes(add(source, model)) == []
    assert {adapter.method for adapter in list_adapters(str(model))} >= {"lora", "bitfit", "houlsby"}


def test_that_a_classifier_of_peft_gets_names_for_its_outputs(tmp_path: Path) -> None:
    model = tiny_encoder(tmp_path / "model", pooled=True)
    base = AutoModelForSequenceClassification.from_pretrained(str(model), num_labels=4)
    config = LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS")
    get_peft_model(base, config).save_pretrained(str(tmp_path / "source"))
    events = add(tmp_path / "source", model, "Four")
    assert any("LABEL_0" in notice.text for notice in of(events, Notice))
    maps = json.loads((find_adapter_called("Four").path / "labels.json").read_text())
    assert list(maps["id2label"].values()) == ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"]
    (answer,) = of(do(Chat(adapter=str(find_adapter_called("Four").path)), [say(1, "Profits rose.")]), ChatAnswer)
    assert sum(label.share for label in answer.labels) == pytest.approx(1)


def _change(**changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return spoil


def _weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        save_file(change(load_file(file)), file)

    return spoil


def _pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Evil()))


class Evil:
    """What a hostile pickle is: it runs a command when it is opened."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was opened",))


def _text(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{ not json")
    (folder / "adapter_model.safetensors").write_bytes(b"no safetensors")


BAD: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "pickle": (_pickled, ["adapter.pickle"], "safe_serialization=True"),
    "damaged": (_text, ["adapter.config", "adapter.weights"], "no safetensors header"),
    "unknown": (_change(peft_type="LORAA"), ["adapter.kind"], "Did you mean 'LORA'"),
    "no kind": (_change(peft_type=None), ["adapter.kind"], "None"),
    "pissa": (_change(init_lora_weights="pissa_niter_4"), ["adapter.changes_base"], "path_initial_model"),
    "two reasons": (_change(init_lora_weights="olora", bias="all"), ["adapter.changes_base"] * 2, "biases"),
    "rank": (_change(r=7), ["adapter.other_model"], "4 × 64, not 7 × 64"),
    "targets": (_change(target_modules=["c_attn"]), ["adapter.other_model"], "c_attn"),
    "fewer targets": (_change(target_modules=["q_proj"]), ["adapter.other_model"], "with no place"),
    "task": (_change(task_type="TOKEN_CLS"), ["adapter.task"], "TOKEN_CLS"),
    "seq2seq": (_change(task_type="SEQ_2_SEQ_LM"), ["model.wrong_kind"], ""),
    "no outputs": (_change(task_type="SEQ_CLS"), ["adapter.task"], "no outputs"),
    "nan": (
        _weights(lambda held: {name: tensor * math.nan for name, tensor in held.items()}),
        ["adapter.not_finite"],
        "NaN",
    ),
    "incomplete": (
        _weights(lambda held: dict(list(held.items())[3:])),
        ["adapter.other_model"],
        "3 missing",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_that_what_cannot_be_used_is_refused_and_nothing_is_left(model: Path, tmp_path: Path, what: str) -> None:
    spoil, expected, words = BAD[what]
    source = by_peft(model, tmp_path / "source", PEFT["lora"])
    spoil(source)
    events = add(source, model)
    assert codes(events) == expected
    assert words in " ".join(str(problem) for problem in of(events, Finished)[0].problems)
    assert not library_dir().exists()


def test_that_sizes_of_another_model_are_told(model: Path, tmp_path: Path) -> None:
    wide = tiny_model(tmp_path / "gpt2", "gpt2")
    for kind in ("lora", "ia3", "prefix"):
        events = add(by_peft(model, tmp_path / kind, PEFT[kind]), wide)
        assert codes(events)[0] == "adapter.other_model"
    assert codes(add(saved(model, tmp_path / "houlsby", "houlsby"), wide))[0] == "adapter.other_model"


def test_that_embeddings_of_the_base_in_the_file_are_refused(model: Path, tmp_path: Path) -> None:
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(str(model)), PEFT["embedding"])
    tuned.save_pretrained(str(tmp_path / "source"))
    events = add(tmp_path / "source", model)
    assert codes(events) == ["adapter.changes_base"]
    assert "embed_tokens" in str(of(events, Finished)[0].problems[0])


def test_that_a_configuration_that_asks_for_the_sky_takes_no_memory(model: Path, tmp_path: Path) -> None:
    lora = by_peft(model, tmp_path / "lora", PEFT["lora"])
    prompt = by_peft(model, tmp_path / "prompt", PEFT["prompt"])
    waist = saved(model, tmp_path / "houlsby", "houlsby")
    for folder, change in ((lora, "r"), (prompt, "num_virtual_tokens"), (waist, "bottleneck")):
        _change(**{change: 10**9})(folder)
        assert codes(add(folder, model)) == ["adapter.other_model"]


def test_that_an_adapter_of_a_model_of_another_name_is_taken_with_a_warning(model: Path, tmp_path: Path) -> None:
    source = by_peft(model, tmp_path / "source", PEFT["lora"])
    _change(base_model_name_or_path="someone/else")(source)
    events = add(source, model)
    assert any("someone/else" in notice.text and notice.level == "warn" for notice in of(events, Notice))
    assert not of(add(by_peft(model, tmp_path / "own", PEFT["lora"]), model), Notice)


def test_that_files_beside_it_come_along_when_they_are_small_and_of_text(model: Path, tmp_path: Path) -> None:
    source = by_peft(model, tmp_path / "source", PEFT["lora"])
    for name in ("tokenizer.json", "chat_template.jinja", "train.py", "training_args.bin", ".hidden.json"):
        (source / name).write_text("{}")
    (source / "huge.json").write_bytes(b" " * 50_000_001)
    (source / "checkpoint-5").mkdir()
    (added,) = of(add(source, model), AdapterAdded)
    assert sorted(path.name for path in Path(added.path).iterdir()) == [
        "README.md", "about.json", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja",
        "tokenizer.json",
    ]  # fmt: skip


def test_that_names_are_made_free_or_refused_and_a_full_disk_leaves_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = by_peft(model, tmp_path / "Tone", PEFT["ia3"])
    names = [of(add(source, model), AdapterAdded)[0].name for _ in range(3)]
    assert names == ["Tone", "Tone 2", "Tone 3"]
    assert codes(add(source, model, "tone")) == ["adapter.name_taken"]
    before = files_under(library_dir())

    def no_space(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    assert codes(add(source, model)) == ["disk.full"]
    assert files_under(library_dir()) == before


# Sums.


def delta(folder: Path) -> dict[str, torch.Tensor]:
    """What an adapter adds to each weight of the model, by hand: scale times B A."""
    config = json.loads((folder / "adapter_config.json").read_text())
    held, found = load_file(folder / "adapter_model.safetensors"), {}
    for name, a in held.items():
        if ".lora_A" not in name:
            continue
        module = name.removesuffix(".lora_A.weight").removeprefix("base_model.model.")
        last = module.rpartition(".")[2]
        alphas = config["alpha_pattern"]
        alpha = alphas.get(module, alphas.get(last, config["lora_alpha"]))
        scale = alpha / math.sqrt(len(a)) if config["use_rslora"] else alpha / len(a)
        found[module] = scale * held[name.replace("lora_A", "lora_B")] @ a
    return found


def combine(name: str, *parts: tuple[Path, float]) -> list[Event]:
    folders, weights = zip(*parts, strict=True)
    return do(CombineAdapters(adapters=tuple(map(str, folders)), weights=weights, name=name))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("lora", "lora"),
        ("lora", "rank_pattern"),
        ("rank_pattern", "rslora"),
        ("rslora", "lora"),
    ],
)
def test_that_a_sum_is_exact_and_plain_peft_loads_it(model: Path, tmp_path: Path, first: str, second: str) -> None:
    one = tell(by_peft(model, tmp_path / "one", PEFT[first], seed=1), model, name="One")
    two = tell(by_peft(model, tmp_path / "two", PEFT[second], seed=2), model, name="Two")
    (added,) = of(combine("Both", (one, 0.7), (two, -0.4)), AdapterAdded)
    adapter = find_adapter_called("Both")
    assert (adapter.path, adapter.origin, adapter.method, adapter.task) == (
        Path(added.path),
        "combined",
        "lora",
        "chat",
    )
    found, left, right = delta(adapter.path), delta(one), delta(two)
    assert found.keys() == left.keys() | right.keys()
    for module, sum_ in found.items():
        nothing = torch.zeros_like(sum_)
        wanted = 0.7 * left.get(module, nothing).double() - 0.4 * right.get(module, nothing).double()
        assert (sum_.double() - wanted).abs().max() < 1e-6
    base = AutoModelForCausalLM.from_pretrained(str(model))
    merged = PeftModel.from_pretrained(base, str(adapter.path)).merge_and_unload().state_dict()
    for name, tensor in AutoModelForCausalLM.from_pretrained(str(model)).state_dict().items():
        module = name.removesuffix(".weight")
        nothing = torch.zeros_like(tensor)
        wanted = tensor + 0.7 * left.get(module, nothing) - 0.4 * right.get(module, nothing)
        assert (merged[name] - wanted).abs().max() < 1e-6


def test_that_a_sum_is_that_of_pefts_own_concatenation(model: Path, tmp_path: Path) -> None:
    configs = [LoraConfig(r=rank, lora_alpha=alpha, target_modules=EVERY, **TASK) for rank, alpha in ((4, 9), (3, 8))]
    folders = [tell(by_peft(model, tmp_path / str(n), item, seed=n), model) for n, item in enumerate(configs)]
    combine("Both", (folders[0], 0.7), (folders[1], 0.3))
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(str(model)), str(folders[0]), "first")
    tuned.load_adapter(str(folders[1]), "second")
    tuned.add_weighted_adapter(["first", "second"], [0.7, 0.3], "sum", combination_type="cat")
    tuned.set_adapter("sum")
    with torch.inference_mode():
        wanted = tuned.eval()(input_ids=torch.arange(5, 25)[None]).logits
    torch.testing.assert_close(scores(model, find_adapter_called("Both").path), wanted, rtol=1e-5, atol=1e-5)


def test_that_adapters_of_runs_are_added_and_embeddings_too(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    run = tiny_run(tmp_path / "run", model)
    embedding = tell(by_peft(model, tmp_path / "embedding", PEFT["embedding"]), model)
    combine("Both", (run.adapter, 1.0), (embedding, 2.0))
    both = find_adapter_called("Both", str(model)).path
    base, zero = scores(model), AutoModelForCausalLM.from_pretrained(str(model))
    tuned = PeftModel.from_pretrained(zero, str(run.adapter), "run")
    tuned.load_adapter(str(embedding), "embedding")
    tuned.add_weighted_adapter(["run", "embedding"], [1.0, 2.0], "sum", combination_type="cat")
    tuned.set_adapter("sum")
    with torch.inference_mode():
        wanted = tuned.eval()(input_ids=torch.arange(5, 25)[None]).logits
    torch.testing.assert_close(scores(model, both), wanted, rtol=1e-4, atol=1e-4)
    assert not torch.equal(wanted, base)


def test_that_everything_that_keeps_adapters_apart_is_told_at_once(model: Path, tmp_path: Path) -> None:
    folders = [
        tell(by_peft(model, tmp_path / "dora", PEFT["dora"]), model),
        tell(by_peft(model, tmp_path / "ia3", PEFT["ia3"]), model),
        tell(by_peft(model, tmp_path / "head", PEFT["head"]), model),
        tell(by_peft(model, tmp_path / "other", PEFT["lora"]), tmp_path / "another"),
        tell(saved(model, tmp_path / "labels", "lora", MOODS), model, "classification"),
        tell(by_peft(model, tmp_path / "pissa", PEFT["lora"]), model),
    ]
    _change(init_lora_weights="pissa")(folders[-1])
    events = combine(" ", *((folder, 0.5) for folder in folders))
    assert sorted(codes(events)) == [
        "adapter.changes_base", "adapter.name", "combine.bases", "combine.not_lora", "combine.not_lora",
        "combine.not_lora", "combine.not_lora",
    ]  # fmt: skip
    assert not library_dir().exists()


@pytest.mark.parametrize("weights", [(0.5,), (0.5, math.inf), (0.5, 0.0), (0.5, 0.5, 0.5)])
def test_that_weights_that_make_no_sum_are_refused(model: Path, tmp_path: Path, weights: tuple[float, ...]) -> None:
    folders = [str(tell(by_peft(model, tmp_path / str(n), PEFT["lora"], n), model)) for n in range(2)]
    events = do(CombineAdapters(adapters=tuple(folders), weights=weights, name="Sum"))
    assert codes(events) == ["combine.weights"]


# Taking away.


@pytest.mark.parametrize("kind", ["lora", "labels", "houlsby"])
def test_that_a_library_adapter_is_exported_with_the_checks_of_a_runs(model: Path, tmp_path: Path, kind: str) -> None:
    source = saved(
        model, tmp_path / "source", "lora" if kind == "labels" else kind, COLOURS if kind == "labels" else None
    )
    place = of(add(source, model, "Mine"), AdapterAdded)[0].path
    events = do(Export(adapter=place, to=str(tmp_path / "out")))
    assert codes(events) == []
    assert [check.name for check in of(events, Checked)] == [
        "Written", "Same base", "Same weights", "Tokenizer and chat template", "Licence and card", "Reopened by peft",
        "Same answers",
    ]  # fmt: skip
    assert all(check.passed for check in of(events, Checked))
    assert of(events, Exported)[0].path == str(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.count("# Mine") == 1
    assert "Settings" not in card
    assert (
        load_file(tmp_path / "out" / "adapter_model.safetensors").keys()
        == load_file(source / "adapter_model.safetensors").keys()
    )
    inside = do(Export(adapter=place, to=str(library_dir() / "copy")))
    assert codes(inside) == ["export.inside_library"]
    assert codes(do(Export(adapter=str(tmp_path / "nothing"), to=str(tmp_path / "x")))) == ["adapter.missing"]


def test_that_a_runs_adapter_is_exported_by_its_folder_as_by_its_run(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", tiny_model(tmp_path / "model"))
    for name, job in (
        ("a", Export(run=str(run.path), to=str(tmp_path / "a"))),
        ("b", Export(adapter=str(run.adapter), to=str(tmp_path / "b"))),
    ):
        assert codes(do(job)) == [], name
    assert files_under(tmp_path / "a") == files_under(tmp_path / "b")
    shutil.rmtree(tmp_path / "a")
