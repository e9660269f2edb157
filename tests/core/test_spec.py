"""RUN.toml: reads back, and says everything that is wrong with it."""

from pathlib import Path
from typing import get_args

import pytest

from tunedesk.core.problems import ProblemError
from tunedesk.core.spec import MethodName, MethodSection, RunSpec, fields_of, parse_spec, read_spec


def problems_of(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ProblemError) as caught:
        parse_spec(text, "RUN.toml", overrides)
    return [str(problem) for problem in caught.value.problems]


def test_that_the_default_run_file_reads_back_the_same() -> None:
    spec = RunSpec(name="Mine")
    assert parse_spec(spec.to_toml()) == spec


def test_that_an_empty_file_is_the_default_run() -> None:
    assert parse_spec("") == RunSpec()


def test_that_an_unknown_key_says_did_you_mean_and_where() -> None:
    (text,) = problems_of("[training]\nlearnin_rate = 1e-4")
    assert "'training.learnin_rate'" in text
    assert "Did you mean 'learning_rate'?" in text
    assert "[training]" in text


def test_that_all_faults_are_reported_together() -> None:
    texts = problems_of("[trainin]\nx = 1\n[method]\nname = 'lorra'\n[training]\nepochs = 'many'\nseed = -1")
    assert len(texts) == 4
    assert any("Did you mean 'training'?" in text for text in texts)
    assert any("'lorra'" in text and "Did you mean 'lora'?" in text for text in texts)
    assert any("'many'" in text for text in texts)
    assert any("training.seed" in text and "-1" in text for text in texts)


def test_that_a_syntax_fault_names_its_line() -> None:
    (text,) = problems_of("[model]\nsource = starter:chat")
    assert "line 2" in text


def test_that_set_overrides_values_and_sections() -> None:
    spec = parse_spec("", "RUN.toml", ["training.seed=7", "method.name=qlora", "data.columns.prompt=question"])
    assert spec.training.seed == 7
    assert spec.method.name == "qlora"
    assert spec.data.columns == {"prompt": "question"}


@pytest.mark.parametrize("override", ["training.seed", "=3", "training..seed=1"])
def test_that_a_malformed_override_is_a_problem(override: str) -> None:
    (text,) = problems_of("", override)
    assert "KEY=VALUE" in text


def test_that_an_override_of_an_unknown_key_is_a_problem() -> None:
    (text,) = problems_of("", "training.ranc=3")
    assert "training.ranc" in text


def test_that_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match=r"There is no file .*gone\.toml"):
        read_spec(tmp_path / "gone.toml")


def test_that_local_paths_are_taken_from_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    file = tmp_path / "RUN.toml"
    file.write_text('[model]\nsource = "model"\n[data]\ntrain = "rows.jsonl"\n', encoding="utf-8")
    spec = read_spec(file)
    assert spec.model.source == str((tmp_path / "model").resolve())
    assert spec.data.train == str((tmp_path / "rows.jsonl").resolve())


def test_that_hub_ids_and_starters_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "RUN.toml"
    file.write_text('[model]\nsource = "org/name"\n[data]\ntrain = "starter:support"\n', encoding="utf-8")
    spec = read_spec(file)
    assert spec.model.source == "org/name"
    assert spec.data.train == "starter:support"


def test_that_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "RUN.toml"
    file.write_bytes(b"\xef\xbb\xbf[training]\nseed = 3\n")
    assert read_spec(file).training.seed == 3


def test_that_a_binary_file_is_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "RUN.toml"
    file.write_bytes(bytes(range(256)))
    with pytest.raises(ProblemError, match="cannot be read"):
        read_spec(file)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("learning_rate = 1e3", "It should be 'auto' or less than or equal to 1."),
        ("epochs = inf", "finite"),
        ("epochs = 1e300", "less than or equal to 10000"),
        ("weight_decay = inf", "finite"),
        ("seed = 99999999999", "less than or equal to 4294967295"),
    ],
)
def test_that_a_number_out_of_range_is_told_its_range(line: str, words: str) -> None:
    (text,) = problems_of(f"[training]\n{line}\n")
    assert words in text


def test_that_a_value_in_place_of_a_section_says_so() -> None:
    (text,) = problems_of("training = 5")
    assert "It should be a section." in text


def test_that_a_run_file_that_is_no_text_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for path in (tmp_path, tmp_path / "binary.toml"):
        with pytest.raises(ProblemError) as caught:
            read_spec(path)
        assert caught.value.problems[0].fix


# Methods and the fields they have.


@pytest.mark.parametrize("name", get_args(MethodName))
def test_that_a_method_with_its_own_fields_reads_back(name: MethodName) -> None:
    section = MethodSection(name=name)
    spec = RunSpec(method=section)
    again = parse_spec(spec.to_toml())
    assert again == spec
    assert again.method.model_fields_set <= {"name", *fields_of(name)}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("name = 'prefix_tuning'\nrank = 8", ("has no 'rank'", "virtual_tokens, prefix_projection", "lora, qlora")),
        ("name = 'bitfit'\nvirtual_tokens = 8", ("has no 'virtual_tokens'", "no settings of its own", "prompt_tuning")),
        ("name = 'full'\nquantised = true", ("has no 'quantised'", "cannot take small steps", "leave")),
        ("name = 'bitfit'\nquantised = true", ("has no 'quantised'", "16 bits", "houlsby")),
        ("name = 'adalora'\ndora = true", ("has no 'dora'", "rank, alpha", "qlora")),
        ("name = 'qlora'\nquantised = false", ("4 bits", 'name = "lora"')),
        ("name = 'qlora'\ninit = 'pissa'", ("cannot be changed", 'init = "default"')),
        ("name = 'lora'\nquantised = true\ninit = 'pissa'", ("cannot be changed", "quantised = false")),
        ("name = 'prompt_tuning'\nprompt_init = 'text'", ("there is none", "prompt_text")),
        ("name = 'prompt_tuning'\nprompt_text = 'Be kind.'", ("would not be used", 'prompt_init = "text"')),
        ("name = 'prefix_tuning'\nencoder_hidden_size = 8", ("has no network", "prefix_projection = true")),
        ("name = 'compacter'\nbottleneck = 10", ("equal parts", "multiple of hypercomplex")),
        ("name = 'houlsby'\nbottleneck = 0", ("greater than or equal to 1",)),
        ("name = 'lora'\nlora_plus_ratio = 0.5", ("greater than or equal to 1",)),
        ("name = 'prefix_tunning'", ("Did you mean 'prefix_tuning'?",)),
    ],
)
def test_that_what_a_method_cannot_use_is_a_problem(lines: str, words: tuple[str, ...]) -> None:
    (text,) = problems_of(f"[method]\n{lines}\n")
    for word in words:
        assert word.lower() in text.lower()


def test_that_fields_of_another_method_are_left_out_of_the_file() -> None:
    section = MethodSection(name="prefix_tuning", rank=8, virtual_tokens=5)
    spec = parse_spec(RunSpec(method=section).to_toml())
    assert (spec.method.virtual_tokens, spec.method.rank) == (5, 16)


def test_that_auto_holds_qlora_alone_in_4_bits() -> None:
    packed = {name for name in get_args(MethodName) if MethodSection(name=name).packed}
    assert packed == {"qlora"}
    assert MethodSection(name="houlsby", quantised=True).packed


def test_that_the_waist_of_an_adapter_follows_its_paper() -> None:
    assert MethodSection(name="houlsby").waist(768) == 64
    assert MethodSection(name="compacter").waist(768) == 24
    assert MethodSection(name="compacter", hypercomplex=5).waist(768) == 25
    assert MethodSection(name="compacter").waist(64) == 4
    assert MethodSection(name="compacter", bottleneck=48).waist(768) == 48


def test_that_virtual_tokens_take_places_from_the_context() -> None:
    taken = {name for name in get_args(MethodName) if MethodSection(name=name).places_taken}
    assert taken == {"prefix_tuning", "prompt_tuning", "p_tuning"}
