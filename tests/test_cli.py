"""The command line as a script sees it: exit status, JSON lines, problems on standard error."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.models import tiny_model
from tunedesk.core.methods import CATALOGUE, TRAINABLE


def tunedesk(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tunedesk", *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "TUNEDESK_HOME": str(home), "COLUMNS": "200", **environment},
    )


def test_that_methods_are_listed_with_their_sources(tmp_path: Path) -> None:
    done = tunedesk("methods", "--json", home=tmp_path)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["name"] for row in rows] == [item.name for item in CATALOGUE]
    assert all("arXiv" in row["source"] for row in rows)
    assert [row["name"] for row in rows if row["trainable"]] == list(TRAINABLE)


def test_that_the_guide_is_grouped_and_one_method_is_shown_in_full(tmp_path: Path) -> None:
    guide = tunedesk("methods", home=tmp_path).stdout
    titles = ["Adapters inside the network", "Virtual tokens before the text", "Parts of the model", "All of it"]
    places = [guide.index(title) for title in titles]
    assert places == sorted(places)
    one = tunedesk("methods", "prefix-tuning", home=tmp_path).stdout
    assert "virtual_tokens" in one
    assert "Learning rate" in one


def test_that_an_unknown_method_gets_a_suggestion(tmp_path: Path) -> None:
    done = tunedesk("methods", "bitfitt", home=tmp_path)
    assert done.returncode == 2
    assert "Did you mean 'bitfit'?" in done.stderr


def test_that_the_matrix_says_what_works_together(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in tunedesk("methods", "--matrix", "--json", home=tmp_path).stdout.splitlines()]
    found = {(row["family"], row["method"], row["task"]): row for row in rows}
    assert found["LLaMA", "lora", "chat"]["fits"]
    assert "none" in found["LLaMA", "bitfit", "chat"]["reason"]
    assert len(rows) == 8 * 5 * len(CATALOGUE)
    assert "no biases" in tunedesk("methods", "--matrix", home=tmp_path).stdout


def test_that_what_fits_a_model_is_told_with_shares_and_reasons(tmp_path: Path) -> None:
    folder = str(tiny_model(tmp_path / "model"))
    rows = [
        json.loads(line)
        for line in tunedesk("methods", "--model", folder, "--json", home=tmp_path / "home").stdout.splitlines()
    ]
    fits = {row["method"]: row["fits"] for row in rows}
    assert (fits["lora"], fits["bitfit"]) == (True, False)
    assert all(0 <= row["share"] <= 1 for row in rows)
    done = tunedesk("methods", "--model", folder, "--task", "seq2seq", home=tmp_path / "home")
    assert done.returncode == 2
    assert "cannot be trained to turn one text into another" in done.stderr


def test_that_advice_takes_its_answers_as_options(tmp_path: Path) -> None:
    given = ("--task", "chat", "--rows", "2000", "--keep-skills", "some", "--memory", "12GiB", "--parameters", "8B")
    advice = json.loads(tunedesk("methods", "--advise", *given, "--json", home=tmp_path).stdout)
    assert advice["verdict"] == "peft"
    assert advice["ranked"][0]["method"] == "qlora"
    missing = tunedesk("methods", "--advise", "--task", "chat", home=tmp_path)
    assert missing.returncode == 2
    assert "--rows N" in missing.stderr


def test_that_no_runs_is_said_and_is_no_fault(tmp_path: Path) -> None:
    assert "No runs yet" in tunedesk("runs", home=tmp_path).stdout
    done = tunedesk("runs", "--json", home=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")


def test_that_the_doctor_names_no_user_and_no_path(tmp_path: Path) -> None:
    done = tunedesk("doctor", "--json", home=tmp_path)
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["packages"]["torch"].startswith("2.")
    assert report["training"]["four_bit"].startswith("works")
    assert str(Path.home()) not in done.stdout
    assert str(tmp_path) not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "nowhere.toml"), "There is no file nowhere.toml"),
        (("resume", "nowhere"), "nowhere is not a run"),
        (("export", "nowhere", "--as", "adapter", "--to", "x"), "nowhere is not a run"),
        (("data", "nowhere.jsonl"), "nowhere.jsonl"),
        (("chat", "./nowhere", "--prompt", "Hi"), "nowhere"),
    ],
)
def test_that_what_is_not_there_is_a_problem(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    done = tunedesk(*arguments, home=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_that_problems_are_json_with_json(tmp_path: Path) -> None:
    done = tunedesk("train", "nowhere.toml", "--json", home=tmp_path)
    assert done.returncode == 2
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["problems"][0]["code"] == "spec.missing"


def test_that_an_unknown_key_costs_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "RUN.toml").write_text("[training]\nlearnin_rate = 1\n")
    done = tunedesk("train", str(tmp_path / "RUN.toml"), home=tmp_path / "home")
    assert done.returncode == 2
    assert "Did you mean 'learning_rate'?" in done.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--max-new-tokens", "-5"), ("--top-p", "7"), ("--temperature", "nan"), ("--temperature", "-1")],
)
def test_that_a_number_that_cannot_be_is_named_with_its_option(option: str, value: str, tmp_path: Path) -> None:
    done = tunedesk("chat", "starter:chat", "--prompt", "Hi", option, value, "--json", home=tmp_path)
    assert done.returncode == 2
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["problems"][0]["what"].startswith(f"{option} {value}")
    assert done.stderr == ""


def test_that_chat_takes_a_model_by_its_full_path(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    done = tunedesk("chat", str(folder), "--prompt", "Hi", home=tmp_path / "home")
    assert done.returncode == 2
    assert "config.json is missing" in done.stderr  # looked at as a model, not as a run


def test_that_a_name_no_file_can_have_is_a_problem(tmp_path: Path) -> None:
    for command in (("resume", "a" * 5000), ("export", "a" * 5000, "--as", "adapter", "--to", "x")):
        done = tunedesk(*command, home=tmp_path)
        assert done.returncode == 2
        assert "is not a run" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux only")
def test_that_a_name_that_is_no_text_is_a_problem(tmp_path: Path) -> None:
    done = tunedesk("data", os.fsdecode(b"\xff.jsonl"), "--json", home=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["problems"][0]["code"] == "cli.not_text"


def test_that_a_run_with_brackets_in_its_name_is_listed_as_it_is_called(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (run / "run.toml").write_text('name = "[/bold] :bug: [red]x"\n')
    done = tunedesk("runs", home=tmp_path)
    assert done.returncode == 0
    assert "[/bold] :bug: [red]x" in done.stdout


def test_that_a_damaged_record_is_named_with_its_line(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (run / "run.toml").write_text('name = "x"\n')
    (run / "events.jsonl").write_text("garbage\n")
    done = tunedesk("resume", "one", home=tmp_path)
    assert done.returncode == 2
    assert "Line 1 is no event" in done.stderr


def test_that_ratings_are_shown_once_the_loss_is_stated(tmp_path: Path) -> None:
    path = tmp_path / "rated.jsonl"
    rows = [{"prompt": f"Hello {n}?", "completion": "Good day.", "label": n % 2 == 0} for n in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = tunedesk("data", str(path), "--task", "preference", "--preference-loss", "kto", "--json", home=tmp_path)
    assert json.loads(done.stdout)["layout"] == "rated"


def test_that_a_run_tells_what_it_forgot_and_is_not_resumed_once_complete(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"Hello {n}?", "completion": "Good day."}) + "\n" for n in range(8)))
    spec = tmp_path / "RUN.toml"
    spec.write_text(
        f"[model]\nsource = {json.dumps(str(model))}\n[data]\ntrain = {json.dumps(str(rows))}\n"
        "[training]\ndevice = 'cpu'\nmax_steps = 1\n"
    )
    done = tunedesk("train", str(spec), "--out", str(tmp_path / "run"), home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "general text" in done.stdout.split("Done.")[-1]
    again = tunedesk("resume", str(tmp_path / "run"), home=tmp_path)
    assert again.returncode == 2
    assert "nothing to resume" in again.stderr
    assert "Go on with it" not in again.stdout
