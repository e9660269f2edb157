"""RUN.toml: reads back, and says everything that is wrong with it."""

from pathlib import Path

import pytest

from tunedesk.core.problems import ProblemError
from tunedesk.core.spec import RunSpec, parse_spec, read_spec


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
