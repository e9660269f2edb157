from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.engine.jobs import do
from tests.engine.models import tiny_adapter, tiny_model
from tunedesk.core import starter
from tunedesk.core.events import InspectModel, ModelDescribed
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.engine.gguf import read_header
from tunedesk.engine.model_folder import check_folder, known_model_types, read_licence
from tunedesk.engine.sources import resolve


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def folder(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "model"))


def problems(source: str | Path, **options: Any) -> tuple[Problem, ...]:
    with pytest.raises(ProblemError) as caught:
        resolve(str(source), **options)
    assert all(problem.fix for problem in caught.value.problems)
    return caught.value.problems


def codes(source: str | Path, **options: Any) -> list[str]:
    return [problem.code for problem in problems(source, **options)]


def edit(path: Path, **changes: Any) -> None:
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}), encoding="utf-8")


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_that_the_description_is_that_of_the_loaded_model(tmp_path: Path, family: str, dtype: torch.dtype) -> None:
    info = resolve(str(tiny_model(tmp_path / "m", family, dtype=dtype)))
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path / "m"))
    assert info.parameters == model.num_parameters()
    assert info.weight_bytes == model.num_parameters() * dtype.itemsize
    assert f"torch.{info.dtype}" == str(model.dtype)
    assert info.tied_embeddings == model.config.tie_word_embeddings
    assert (info.layers, info.hidden_size, info.attention_heads) == (2, 64, 4)
    assert info.vocabulary == model.config.vocab_size
    assert info.context_length == 256
    assert (info.kind, info.tasks, info.origin) == (
        "decoder",
        ("chat", "completion", "classification", "preference"),
        "folder",
    )
    linears: dict[tuple[str, int, int], int] = {}
    for name, module in model.named_modules():
        leaf = name.rpartition(".")[2]
        if leaf == "lm_head" or not hasattr(module, "weight") or type(module).__name__ not in ("Linear", "Conv1D"):
            continue
        out_in = module.weight.shape if type(module).__name__ == "Linear" else module.weight.shape[::-1]
        key = (leaf, out_in[1], out_in[0])
        linears[key] = linears.get(key, 0) + 1
    assert {(item.name, item.in_features, item.out_features): item.count for item in info.linears} == linears


def test_that_an_encoder_can_learn_labels_alone(tmp_path: Path) -> None:
    info = resolve(str(tiny_model(tmp_path / "m", "bert", template=None)))
    assert (info.kind, info.tasks, info.family) == ("encoder", ("classification",), "BERT")


def test_that_a_model_without_template_knows_no_conversations(tmp_path: Path) -> None:
    info = resolve(str(tiny_model(tmp_path / "m", template=None)))
    assert (info.has_chat_template, info.tasks) == (False, ("completion", "classification", "preference"))


def test_that_describing_needs_neither_torch_nor_transformers(llama: Path) -> None:
    program = (
        "import sys\nfrom tunedesk.engine.sources import resolve\n"
        f"print(resolve({str(llama)!r}).parameters, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1:] == ["False", "False"]


def test_that_a_model_is_described_as_an_event(llama: Path) -> None:
    events = do(InspectModel(source=str(llama)))
    assert [event.kind for event in events] == ["started", "model", "finished"]
    assert isinstance(events[1], ModelDescribed)
    assert events[1].info == resolve(str(llama))


def test_that_pickle_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (problem,) = problems(folder)
    assert problem.code == "model.pickle"
    assert "run code" in problem.what
    assert "pytorch_model.bin" in problem.found


def test_that_a_folder_that_is_no_model_says_what_is_there(tmp_path: Path) -> None:
    assert problems(tmp_path)[0].found == "The folder is empty."
    (tmp_path / "letter.txt").write_text("Dear", encoding="utf-8")
    (problem,) = problems(tmp_path)
    assert problem.code == "model.not_a_model"
    assert "config.json" in problem.what
    assert "letter.txt" in problem.found


def test_that_all_that_is_missing_is_told_at_once(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != "config.json":
            path.unlink()
    assert codes(folder) == ["model.no_weights", "model.no_tokenizer"]


def test_that_the_folder_inside_is_suggested(folder: Path) -> None:
    assert str(folder) in problems(folder.parent)[0].fix


def test_that_an_adapter_names_its_base(llama: Path, tmp_path: Path) -> None:
    (problem,) = problems(tiny_adapter(llama, tmp_path / "adapter"))
    assert problem.code == "model.is_adapter"
    assert str(llama) in problem.fix


def test_that_code_of_the_model_is_refused_only_where_transformers_has_none(folder: Path) -> None:
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_llama.Evil"})
    assert resolve(str(folder)).kind == "decoder"
    edit(folder / "config.json", model_type="evilmind")
    (problem,) = problems(folder)
    assert problem.code == "model.remote_code"
    assert "modeling_llama.Evil" in problem.found


def test_that_an_unknown_family_brings_a_suggestion(folder: Path) -> None:
    edit(folder / "config.json", model_type="lama")
    (problem,) = problems(folder)
    assert (problem.code, problem.found) == ("model.unknown_type", "Did you mean 'llama'?")
    edit(folder / "config.json", model_type=...)
    assert codes(folder) == ["model.no_type"]


def test_that_quantised_weights_are_refused(folder: Path) -> None:
    edit(folder / "config.json", quantization_config={"quant_method": "gptq"})
    assert codes(folder) == ["model.quantised"]


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_that_weights_that_are_cut_short_are_noticed(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert codes(folder) == ["model.damaged"]


def test_that_a_header_of_nonsense_is_noticed(folder: Path) -> None:
    path = folder / "model.safetensors"
    for header in (b"[]", b"{not json", b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}'):
        path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
        assert codes(folder) == ["model.damaged"]


def test_that_missing_shards_are_named(folder: Path) -> None:
    weights = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors").rename(folder / weights["a"])
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weights}), encoding="utf-8")
    (problem,) = problems(folder)
    assert problem.code == "model.missing_shards"
    assert weights["b"] in problem.found
    index.write_text(json.dumps({"weight_map": {"a": "../../elsewhere.safetensors"}}), encoding="utf-8")
    assert codes(folder) == ["model.unreadable"]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_that_json_that_cannot_be_read_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text('{"half": ', encoding="utf-8")
    (problem,) = problems(folder)
    assert (problem.code, problem.where) == ("model.unreadable", str(folder / name))


@pytest.mark.parametrize(
    ("name", "text", "licence"),
    [
        ("README.md", "---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ("README.md", "---\nlicense: other\nlicense_name: llama3\n---\n", "llama3"),
        ("README.md", "# No front matter\nlicense: mit\n", None),
        ("LICENSE", "   Apache License\n  Version 2.0, January 2004\n", "apache-2.0"),
        ("LICENSE", "MIT License\n\nCopyright", "mit"),
        ("LICENSE.txt", "GEMMA TERMS OF USE\n\nmore", "GEMMA TERMS OF USE"),
    ],
)
def test_that_the_licence_is_read(tmp_path: Path, name: str, text: str, licence: str | None) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_licence(tmp_path) == licence


def test_that_transformers_types_are_known() -> None:
    assert {"llama", "qwen2", "gpt2", "bert", "t5", "gemma3_text", "mistral"} <= known_model_types()


def test_that_other_files_and_names_are_refused(folder: Path, tmp_path: Path) -> None:
    assert codes(folder / "model.safetensors") == ["model.not_a_model"]
    assert codes(tmp_path / "nothing") == ["model.missing"]
    assert codes("two words") == ["model.missing"]
    assert codes("starter:cat") == ["starter.unknown"]


@pytest.mark.parametrize("content", [b"", b"GGUF", b"PK\3\4" + b"\0" * 100, b"GGUF\3\0\0\0" + b"\xff" * 100])
def test_that_a_file_that_is_no_gguf_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    assert codes(tmp_path / "model.gguf") == ["gguf.unreadable"]


def gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def test_that_a_gguf_of_an_unknown_architecture_or_cut_short_is_refused(tmp_path: Path) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + gguf_text("general.architecture") + struct.pack("<I", 8)
    head += gguf_text("strange") + gguf_text("a") + struct.pack("<IQIQ", 1, 8, 0, 0)
    (tmp_path / "short.gguf").write_bytes(head)
    assert codes(tmp_path / "short.gguf") == ["gguf.truncated"]
    (tmp_path / "strange.gguf").write_bytes(head + b"\0" * 128)
    assert read_header(tmp_path / "strange.gguf").parameters == 8
    assert codes(tmp_path / "strange.gguf") == ["gguf.unsupported"]


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "bert"])
def test_that_a_config_alone_gives_the_same_sizes(tmp_path: Path, family: str) -> None:
    whole = resolve(str(tiny_model(tmp_path / "m", family)))
    for path in (tmp_path / "m").iterdir():
        if path.name != "config.json" and not path.name.startswith(("tokenizer", "chat_template")):
            path.unlink()
    assert codes(tmp_path / "m") == ["model.no_weights"]
    bare = resolve(str(tmp_path / "m"), config_only=True)
    same = {"path": None, "linears": ()}
    assert bare.model_copy(update=same) == whole.model_copy(update=same)
    assert {*bare.linears} == {*whole.linears}


# The Hub, played by a small server.

_SHA = "c" * 40


class _Hub(BaseHTTPRequestHandler):
    root: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        self.asked.append(self.path)
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[0] == "api":
            self._api("/".join(parts[2:4]), parts[4:])
            return
        file = self.root / parts[1] / parts[-1]
        data = file.read_bytes()
        headers = {"ETag": f'"{parts[-1]}"', "X-Repo-Commit": _SHA, "Accept-Ranges": "bytes"}
        self._send(200, data if body else b"", headers, len(data))

    def _api(self, repo: str, rest: list[str]) -> None:
        refusals = {"tiny/unknown": (404, "RepoNotFound"), "tiny/gated": (403, "GatedRepo")}
        if "/" not in repo:
            self._send(404, b"{}", {})
        elif repo in refusals:
            status, reason = refusals[repo]
            self._send(status, b"{}", {"X-Error-Code": reason})
        elif rest and rest[0] == "revision" and rest[1] not in ("main", _SHA):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            files = [path for path in sorted((self.root / repo.split("/")[1]).iterdir()) if path.is_file()]
            siblings = [{"rfilename": path.name, "size": path.stat().st_size} for path in files]
            tree = [{"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "a" * 40} for path in files]
            value = tree if rest and rest[0] == "tree" else {"id": repo, "sha": _SHA, "siblings": siblings}
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data) if length is None else length)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Hub]]:
    shutil.copytree(llama, tmp_path / "hub" / "model")
    (tmp_path / "hub" / "model" / "pytorch_model.bin").write_bytes(b"pickle")
    pickled = shutil.copytree(llama, tmp_path / "hub" / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    code = shutil.copytree(llama, tmp_path / "hub" / "code")
    edit(code / "config.json", model_type="evilmind", auto_map={"AutoModel": "evil.Model"})
    handler = type("Handler", (_Hub,), {"root": tmp_path / "hub", "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    for name in (
        "HF_HUB_CACHE",
        "HF_TOKEN",
        "HF_HUB_OFFLINE",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "http_proxy",
        "https_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    yield handler
    server.shutdown()
    server.server_close()


def inspect_elsewhere(*jobs: InspectModel, env: dict[str, str] | None = None) -> list[list[dict[str, Any]]]:
    """Each job in one fresh process, since the Hub's client reads its settings when it is imported."""
    import os

    program = (
        "import sys\nfrom tests.engine.jobs import do\nfrom tunedesk.core.events import read_job\n"
        "for line in sys.argv[1:]:\n"
        "    print('[' + ','.join(event.model_dump_json() for event in do(read_job(line))) + ']')"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, *(job.model_dump_json() for job in jobs)],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'app'}", **(env or {})},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_that_a_hub_model_is_fetched_once_and_then_used_from_the_cache(hub: type[_Hub], tmp_path: Path) -> None:
    job = InspectModel(source="tiny/model")
    not_yet, first, second = inspect_elsewhere(job.model_copy(update={"fetch": False}), job, job)
    assert not_yet[-1]["problems"][0]["code"] == "hub.not_here"
    info = next(event["info"] for event in first if event["kind"] == "model")
    assert (info["origin"], info["name"], info["source"]) == ("hub", "tiny/model", "tiny/model")
    assert str(tmp_path / "hf") in info["path"]
    size = (tmp_path / "hub" / "model" / "model.safetensors").stat().st_size
    progress = [event for event in first if event["kind"] == "progress"]
    assert progress[-1]["total"] == progress[-1]["done"] == size
    assert [event["kind"] for event in second] == ["started", "model", "finished"]
    assert not any("pytorch_model.bin" in path for path in hub.asked)
    (offline,) = inspect_elsewhere(job, env={"HF_HUB_OFFLINE": "1"})
    assert offline[-1]["outcome"] == "completed"


def test_that_what_the_hub_refuses_is_explained(hub: type[_Hub]) -> None:
    cases = {
        "tiny/unknown": "hub.unknown",
        "tiny/gated": "hub.gated",
        "tiny/pickled": "model.pickle",
        "tiny/code": "model.remote_code",
    }
    jobs = [InspectModel(source=source) for source in cases] + [InspectModel(source="tiny/model", revision="v9")]
    found = [events[-1]["problems"][0] for events in inspect_elsewhere(*jobs)]
    assert [problem["code"] for problem in found] == [*cases.values(), "hub.no_revision"]
    assert "hf auth login" in found[1]["fix"]
    assert not any(path.endswith(("safetensors", ".bin")) for path in hub.asked)


def test_that_no_connection_is_a_problem(hub: type[_Hub]) -> None:
    job = InspectModel(source="tiny/model")
    (dead,) = inspect_elsewhere(job, env={"HF_ENDPOINT": "http://127.0.0.1:9"})
    (offline,) = inspect_elsewhere(job, env={"HF_HUB_OFFLINE": "1"})
    assert [events[-1]["problems"][0]["code"] for events in (dead, offline)] == ["hub.offline"] * 2


@pytest.mark.slow
def test_that_the_starter_model_survives_its_conversion() -> None:
    info = resolve("starter:chat")
    assert (info.family, info.parameters, info.dtype) == ("LLaMA", 134_515_008, "bfloat16")
    assert (info.licence, info.tasks, info.context_length) == (
        "apache-2.0",
        ("chat", "completion", "classification", "preference"),
        8192,
    )
    assert resolve("starter:chat").path == info.path
    assert not check_folder(Path(str(info.path)))
    header = read_header(starter.fetch("chat", print))
    tokenizer = AutoTokenizer.from_pretrained(str(info.path))
    assert tokenizer.chat_template == header.metadata["tokenizer.chat_template"]
    assert (tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token) == (
        "<|im_end|>",
        "<|im_start|>",
        "<|im_end|>",
    )
    assert tokenizer.convert_ids_to_tokens(tokenizer("  12 €")["input_ids"])[:3] == ["ĠĠ", "1", "2"]
    text = "Ünï\n\n  code(123)  — 漢字 😀"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    model = AutoModelForCausalLM.from_pretrained(str(info.path))
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**prompt, do_sample=False, max_new_tokens=20)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(output)
    assert int(output[-1]) == tokenizer.eos_token_id
