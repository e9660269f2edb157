"""The command line: the same core and the same engine as the window, for scripts, servers and tests.

Exit status: 0 done, 1 internal error, 2 a problem that the user can mend, 130 stopped on request.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import ValidationError
from rich.markup import escape

from tunedesk import __version__, terminal
from tunedesk.core import events as e
from tunedesk.core.adapters import Adapter, delete_adapter, find_adapter_called, list_adapters, rename_adapter
from tunedesk.core.client import EngineProcess
from tunedesk.core.describe import ModelInfo, ProblemType
from tunedesk.core.hardware import choose_device, read_hardware
from tunedesk.core.matching import TASKS, Match, matches, matrix, tasks_of, unfit_task
from tunedesk.core.methods import CATALOGUE, TRAINABLE, Method
from tunedesk.core.paths import cache_dir, runs_dir, starter_data
from tunedesk.core.problems import Problem, ProblemError, did_you_mean
from tunedesk.core.recommend import Memory, Situation, advise, room
from tunedesk.core.runs import RunFolder, cannot_write, create_run, find_run, list_runs, open_run
from tunedesk.core.spec import RunSpec, read_spec
from tunedesk.core.state import RunState, reduce_all
from tunedesk.terminal import ERR, OUT, show_problems

INTERNAL = ("internal", "engine.died", "engine.protocol", "engine.not_started")
QUESTIONS = (
    "My lamp arrived with a cracked shade. What should I do?",
    "How long do I have to send something back?",
    "Do you repair old lamps?",
)
ADVICE_FACTS = ("shift", "tasks", "one_file", "manner", "changing", "prompting", "last_point", "new_parts", "known")
PACKAGES = (
    "PySide6-Essentials",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "datasets",
    "safetensors",
    "pydantic",
)


def run(arguments: Sequence[str]) -> int:
    """Do what `arguments` say; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        _check_text(arguments)
        return int(options.command(options))
    except ProblemError as error:
        return _fail(error.problems, as_json=options.json)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 130  # the reader wants no more


def _check_text(arguments: Sequence[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise ProblemError(
                Problem(
                    code="cli.not_text",
                    what="A name on the command line holds bytes that are no text.",
                    found=f"There is {argument!a}.",
                    fix="Rename the file, with letters in UTF-8.",
                )
            ) from error


def run_without_display() -> int:
    """The main job where no window can be shown: tune the starter model, and let both models answer."""
    OUT.print("There is no display here, so the window stays closed. Tuning the starter model instead.")
    OUT.print("(`tunedesk --help` lists what else the command line does.)\n")
    try:
        return _tour()
    except ProblemError as error:
        return _fail(error.problems, as_json=False)
    except KeyboardInterrupt:
        return 130


def _tour() -> int:
    run = create_run(RunSpec(name="Starter tour"))
    status = _train(run, resume=False, as_json=False)
    if status != 0:
        return status
    OUT.print("\nThe same questions to the original and to the tuned model:\n")
    answers = _answers(e.Chat(run=str(run.path)), QUESTIONS, ("base", "tuned"), e.Sampling(temperature=0.0))
    for question, answer in zip(QUESTIONS, answers, strict=True):
        terminal.side_by_side(question, answer["base"], answer["tuned"])
    OUT.print(f"\nRun folder: {run.path}", markup=False, soft_wrap=True)
    OUT.print(f"Talk to it: tunedesk chat {run.id}\nSave it:    tunedesk export {run.id} --as adapter --to FOLDER")
    return 0


def _answers(
    job: e.Chat, questions: Sequence[str], sides: Sequence[e.Side], sampling: e.Sampling
) -> Iterator[dict[str, str]]:
    """The answers to each question, asked on its own, by side. Raises `ProblemError`."""
    with _engine(job) as process:
        for number, question in enumerate(questions):
            turn = (e.Message(role="user", content=question),)
            process.send(e.Ask(id=number, conversations=dict.fromkeys(sides, turn), sampling=sampling))
        found: dict[str, str] = {}
        for event in process.events():
            match event:
                case e.ChatAnswer(side=side, text=text):
                    found[side] = text
                case e.Asked(id=number, problems=problems):
                    if problems:
                        raise ProblemError(problems)
                    yield found
                    found = {}
                    if number == len(questions) - 1:
                        process.send(e.Close())
                case e.Finished(problems=problems) if problems:
                    raise ProblemError(problems)
                case _:
                    pass


# Commands.


def train(options: argparse.Namespace) -> int:
    """`tunedesk train RUN.toml`."""
    spec = read_spec(Path(options.file), options.set)
    run = create_run(spec, Path(options.out) if options.out else None)
    return _train(run, resume=False, as_json=options.json)


def resume(options: argparse.Namespace) -> int:
    """`tunedesk resume RUN_DIR`."""
    run = open_run(options.run)
    before = run.state()
    if run.alive():
        raise ProblemError(
            Problem(
                code="run.alive",
                what="This run is still training.",
                where=str(run.path),
                found=f"Process {run.process_id()} works on it.",
                fix="Wait for its end, or stop it where it was started.",
            )
        )
    return _train(run, resume=True, as_json=options.json, before=before)


def _train(run: RunFolder, *, resume: bool, as_json: bool, before: RunState | None = None) -> int:
    job = e.Train(run=str(run.path), resume=resume)
    state = before or RunState()
    view = terminal.TrainingView(state=state)
    with _engine(job, run.log_file, run.events_file) as process, _stop_on_signals(process) as signals:
        for event in process.events():
            if as_json:
                _print_event(event)
                state = reduce_all([event], state)
            else:
                view.show(event)
    state = state if as_json else view.state
    if signals.forced and state.status == "failed":  # as asked: nothing to explain
        ERR.print(f"Ended at once. Go on with: tunedesk resume {run.path}", markup=False, soft_wrap=True)
        return 130
    if not as_json:
        terminal.show_verdict(state, str(run.path))
        show_problems(state.problems)
        complete = any(problem.code == "run.complete" for problem in state.problems)
        if state.status in ("failed", "stopped") and state.checkpoint and not complete:
            OUT.print(f"Go on with it: tunedesk resume {run.path}", markup=False, soft_wrap=True)
    status = _status(state.status, state.problems)
    if status == 2 and state.began is None and not resume:
        shutil.rmtree(run.path, ignore_errors=True)  # nothing was trained: leave no empty run behind
    return status


def plan(options: argparse.Namespace) -> int:
    """`tunedesk plan RUN.toml`."""
    spec = read_spec(Path(options.file), options.set)
    found = _collect(e.MakePlan(run_toml=spec.to_toml(), device=options.device), (e.ModelDescribed, e.PlanMade))
    model = next((event.info for event in found if isinstance(event, e.ModelDescribed)), None)
    made = next(event.plan for event in found if isinstance(event, e.PlanMade))
    if options.json:
        _print_json(
            {
                **made.asked.model_dump(),
                "fits": made.fits,
                "device": made.device.model_dump(),
                "suggestion": {
                    "fits": made.suggestion_fits,
                    "settings": made.settings,
                    "changes": [change.model_dump() for change in made.changes],
                    **made.suggested.model_dump(),
                },
                "alternatives": [item.model_dump() for item in made.alternatives],
                "seconds_per_epoch": made.seconds_per_epoch,
                "resolved": made.resolved.model_dump(),
                "recommended_method": made.recommended_method,
                "reasons": made.reasons,
                "trainable_parameters": made.trainable_parameters,
                "total_parameters": made.total_parameters,
            }
        )
    else:
        terminal.show_plan(made, model)
    return 0


def data(options: argparse.Namespace) -> int:
    """`tunedesk data FILE`."""
    source = options.file if options.file.startswith("starter:") else str(Path(options.file).expanduser().resolve())
    columns = dict(_pair(item) for item in options.column)
    job = e.InspectData(
        source=source,
        model=options.model,
        task=options.task,
        problem_type=options.problem_type,
        preference_loss=options.preference_loss,
        columns=columns,
    )
    found = _collect(job, (e.DataDescribed,))
    event = next(event for event in found if isinstance(event, e.DataDescribed))
    if options.json:
        _print_json({**event.info.model_dump(), "examples": [row.model_dump() for row in event.examples]})
    else:
        terminal.show_data(event.info, event.examples)
    return 0


def methods(options: argparse.Namespace) -> int:
    """`tunedesk methods`: the guide, one method, what fits a model, what fits what, or advice."""
    if options.matrix:
        return _show_matrix(as_json=options.json)
    model = _described(options.model) if options.model else None
    if options.advise:
        return _advise(options, model)
    if options.method:
        return _show_method(_method_called(options.method), as_json=options.json)
    if model:
        return _show_matches(model, options)
    if options.json:
        for item in CATALOGUE:
            _print_json(_method_row(item))
    else:
        terminal.show_guide(CATALOGUE)
    return 0


def _method_row(item: Method) -> dict[str, Any]:
    fields = [{"key": field.key, "label": field.label, "help": field.help} for field in item.fields]
    return {**dataclasses.asdict(item), "fields": fields, "trainable": item.name in TRAINABLE}


def _method_called(name: str) -> Method:
    wanted = name.lower().replace("-", "_")
    for item in CATALOGUE:
        if wanted in (item.name, item.title.lower()):
            return item
    fix = did_you_mean(wanted, [item.name for item in CATALOGUE])
    raise ProblemError(Problem(code="cli.method", what=f"There is no method '{name}'.", fix=fix))


def _show_method(item: Method, *, as_json: bool) -> int:
    if as_json:
        _print_json(_method_row(item))
    else:
        terminal.show_method(item)
    return 0


def _described(source: str) -> ModelInfo:
    found = _collect(e.InspectModel(source=source, fetch=False), (e.ModelDescribed,))
    return next(event.info for event in found if isinstance(event, e.ModelDescribed))


def _show_matches(model: ModelInfo, options: argparse.Namespace) -> int:
    task = options.task or (tasks_of(model) or TASKS)[0]
    problem = unfit_task(model, task)
    if problem:
        raise ProblemError(problem)
    found = matches(model, task, options.labels)
    if options.json:
        for item in found:
            _print_json(_match_row(item))
    else:
        terminal.show_matches(model, task, found)
    return 0


def _match_row(item: Match) -> dict[str, Any]:
    problem = item.problem.model_dump() if item.problem else None
    return {**dataclasses.asdict(item), "problem": problem, "fits": item.problem is None}


def _show_matrix(*, as_json: bool) -> int:
    table = matrix()
    if not as_json:
        terminal.show_matrix(table)
        return 0
    for family, cells in table.items():
        for item in cells:
            reason = item.problem.what if item.problem else ""
            _print_json(
                {"family": family, "method": item.method, "task": item.task, "fits": not reason, "reason": reason}
            )
    return 0


def _advise(options: argparse.Namespace, model: ModelInfo | None) -> int:
    """`tunedesk methods --advise`: ask what is not given, and answer."""
    asks = not options.json and sys.stdin.isatty()
    answers: dict[str, Any] = {
        key: _memory(options, model, asks=asks) if key == "memory" else _answered(key, options, asks=asks)
        for key in terminal.ADVICE_QUESTIONS
    }
    facts: dict[str, Any] = {name: getattr(options, name) for name in ADVICE_FACTS}
    if asks and any(getattr(options, key) is None for key in answers):
        with suppress(EOFError):
            facts.update(terminal.ask_facts())
    situation = Situation(**answers, **facts, parameters=model.parameters if model else options.parameters)
    advice = advise(situation, model)
    if options.json:
        _print_json({**dataclasses.asdict(advice), "situation": dataclasses.asdict(situation)})
    else:
        terminal.show_advice(advice)
    return 0


def _answered(key: str, options: argparse.Namespace, *, asks: bool) -> Any:
    """The answer to the question `key`, from the options or the person. Raises `ProblemError` where there is none."""
    given = getattr(options, key)
    if given is not None:
        return given
    if asks:
        with suppress(EOFError):
            return terminal.ask_for(key)
    question = terminal.ADVICE_QUESTIONS[key]
    choices = f" {', '.join(dict(question.answers))}" if question.answers else " N"
    raise ProblemError(
        Problem(
            code="cli.question", what="An answer is missing.", found=question.text, fix=f"{question.option}{choices}"
        )
    )


def _memory(options: argparse.Namespace, model: ModelInfo | None, *, asks: bool) -> Memory:
    """How much room there is: as stated, or by the size of the model and of the memory stated or here."""
    size: int | None = model.parameters if model else options.parameters
    stated = options.memory
    if stated in get_args(Memory) or (stated is None and size is None):
        return cast(Memory, _answered("memory", options, asks=asks))
    if size is None:
        fix = "Add --parameters (such as 7B) or --model, or say ample, fits, tight or short."
        raise ProblemError(Problem(code="cli.value", what=f"--memory {stated} needs a model's size.", fix=fix))
    try:
        device = choose_device(read_hardware(), f"memory:{stated}" if stated else "auto")
    except ValueError as error:
        fix = "Say ample, fits, tight or short, or a size such as 12GiB."
        raise ProblemError(Problem(code="cli.value", what=f"--memory {stated} cannot be used.", fix=fix)) from error
    return room(size, device.free_bytes)


def chat(options: argparse.Namespace) -> int:
    """`tunedesk chat RUN_DIR|MODEL`."""
    run = find_run(options.what)
    base = run.spec().model.source if run else options.what
    chosen, sampling = _chosen(options.adapter, base), _sampling(options)
    first = str(chosen[0].path) if chosen else None
    job = e.Chat(run=str(run.path), adapter=first) if run else e.Chat(model=options.what, adapter=first)
    with _engine(job, cache_dir() / "logs" / "chat.log") as process:
        talk = _Talk(process, options, sampling, base)
        if not talk.load():
            return talk.status
        if options.prompt:
            for prompt in options.prompt:
                talk.ask_each(prompt, chosen)
        else:
            for prompt in _typed_prompts(as_json=options.json):
                talk.take(prompt)
        process.send(e.Close())
        return talk.finish()


def _chosen(names: Sequence[str], base: str | None = None) -> list[Adapter]:
    """The adapters, with `base` of that model, that are called so. Raises `ProblemError` for all that are not there."""
    found: list[Adapter] = []
    problems: list[Problem] = []
    for name in names:
        try:
            found.append(find_adapter_called(name, base))
        except ProblemError as error:
            problems += error.problems
    if problems:
        raise ProblemError(problems)
    return found


def _sampling(options: argparse.Namespace) -> e.Sampling:
    """How the answers are chosen. Raises `ProblemError` for numbers that cannot be."""
    temperature = options.temperature if options.temperature is not None else (0.0 if options.prompt else 0.7)
    try:
        return e.Sampling(
            temperature=temperature, max_new_tokens=options.max_new_tokens, top_p=options.top_p, seed=options.seed
        )
    except ValidationError as error:
        raise ProblemError(_bad_option(item["loc"], item["input"], item["msg"]) for item in error.errors()) from error


def _bad_option(location: tuple[int | str, ...], value: object, message: str) -> Problem:
    option = "--" + str(location[-1]).replace("_", "-")
    return Problem(
        code="cli.value",
        what=f"{option} {value} cannot be used.",
        fix=message.replace("Input should be", f"{option} should be") + ".",
    )


class _Talk:
    """A conversation with a loaded chat engine on the terminal, on the model `base`."""

    def __init__(self, process: EngineProcess, options: argparse.Namespace, sampling: e.Sampling, base: str) -> None:
        self._process, self._sampling, self._json, self._base = process, sampling, options.json, base
        self._untuned: bool = options.base
        self._side: e.Side = "base"
        self._adapter: str | None = None
        self._system = (e.Message(role="system", content=options.system),) if options.system else ()
        self._history: tuple[e.Message, ...] = ()
        self._count = 0
        self.status = 0

    def load(self) -> bool:
        """Wait until questions may be asked; False when the model cannot be loaded."""
        for event in self._process.events():
            self._show(event)
            if isinstance(event, e.ChatReady):
                self._now_speaks(event.sides, event.adapter)
                return True
        return False

    def _now_speaks(self, sides: Sequence[e.Side], adapter: str | None) -> None:
        self._side = "tuned" if "tuned" in sides and not (self._untuned and "base" in sides) else "base"
        self._adapter = adapter

    def take(self, typed: str) -> None:
        """Do what was typed: `/adapters`, `/use NAME`, or else a message in the same conversation."""
        word, _, rest = typed.strip().partition(" ")
        if word == "/adapters":
            self._list()
        elif word == "/use":
            self._use_called(rest.strip())
        else:
            self.ask(typed, keep=True)

    def _list(self) -> None:
        found = list_adapters(self._base)
        if self._json:
            for item in found:
                _print_json(_adapter_row(item))
        else:
            terminal.show_adapters(found, self._adapter)

    def _use_called(self, name: str) -> None:
        try:
            adapter = None if name == "base" else find_adapter_called(name, self._base)
        except ProblemError as error:
            self._fail(error.problems)
            return
        if self.use(adapter) and not self._json:
            words = f"{adapter.name} answers now" if adapter else "The model answers now, without an adapter"
            ERR.print(f"{words}; a new conversation.", style="dim", markup=False)

    def use(self, adapter: Adapter | None) -> bool:
        """Let `adapter` answer from now on, in a new conversation; False when it cannot."""
        self._process.send(e.UseAdapter(path=str(adapter.path) if adapter else None))
        for event in self._process.events():
            self._show(event)
            if isinstance(event, e.AdapterUsed):
                self._now_speaks(event.sides, event.path)
                self._history = self._history if event.problems else ()
                return not event.problems
            if isinstance(event, e.Finished):
                break
        return False

    def ask_each(self, prompt: str, adapters: Sequence[Adapter]) -> None:
        """Ask every one of `adapters` in turn, or what is there; of several each is named before its answer."""
        for adapter in adapters if len(adapters) > 1 else ():
            if self._adapter != str(adapter.path) and not self.use(adapter):
                continue
            if not self._json:
                OUT.print(f"{adapter.name}:", style="bold", markup=False)
            self.ask(prompt, keep=False)
        if len(adapters) < 2:
            self.ask(prompt, keep=False)

    def ask(self, prompt: str, *, keep: bool) -> None:
        """Ask and print the answer; with `keep` it goes on in the same conversation."""
        turn = (*self._history, e.Message(role="user", content=prompt)) if keep else (_user(prompt),)
        messages = (*self._system, *turn)
        self._count += 1
        self._process.send(e.Ask(id=self._count, conversations={self._side: messages}, sampling=self._sampling))
        for event in self._process.events():
            self._show(event)
            if isinstance(event, e.ChatAnswer) and keep:
                self._history = (*turn, e.Message(role="assistant", content=event.text))
            if isinstance(event, e.Asked | e.Finished):
                return

    def finish(self) -> int:
        """Take the last events; returns the exit status."""
        for event in self._process.events():
            self._show(event)
        return self.status

    def _show(self, event: e.Event) -> None:
        if self._json:
            _print_event(event)
        match event:
            case e.ChatDelta(text=text) if not self._json:
                OUT.print(text, end="", markup=False, soft_wrap=True)
            case e.ChatAnswer(labels=labels) if not self._json and labels:
                OUT.print(", ".join(f"{item.name} {item.share:.1%}" for item in labels[:10]), markup=False)
            case e.ChatAnswer(number=number, text=text) if not self._json and number is not None:
                OUT.print(text, markup=False)
            case e.ChatAnswer() if not self._json:
                OUT.print()
            case e.Stage(text=text) if not self._json and ERR.is_terminal:
                ERR.print(text + " …", style="dim")
            case e.Notice(text=text) if not self._json:
                ERR.print(text, style="dim")
            case e.Asked(problems=problems) | e.AdapterUsed(problems=problems) | e.Finished(problems=problems):
                self._fail(problems, told=self._json)
            case _:
                pass

    def _fail(self, problems: Sequence[Problem], *, told: bool = False) -> None:
        """Show `problems`, if there are any and JSON has not `told` them; the exit status is theirs."""
        if problems:
            self.status = _status("failed", problems)
        if problems and self._json and not told:
            _print_json({"problems": [problem.model_dump() for problem in problems]})
        elif not self._json:
            show_problems(problems)


def _user(prompt: str) -> e.Message:
    return e.Message(role="user", content=prompt)


def _typed_prompts(*, as_json: bool) -> Iterator[str]:
    """What the person types, until an empty line at the end of input."""
    if sys.stdin.isatty() and not as_json:
        ERR.print(
            "Type a message and Enter. /adapters lists adapters, /use NAME lets one answer. Ctrl+D ends.", style="dim"
        )
    while True:
        try:
            prompt = input("You: ") if sys.stdin.isatty() and not as_json else sys.stdin.readline().rstrip("\n")
        except EOFError:
            return
        if not prompt:
            return
        yield prompt


def export(options: argparse.Namespace) -> int:
    """`tunedesk export RUN_DIR --as adapter --to DIR`."""
    run = open_run(options.run)
    to = str(Path(options.to).expanduser().resolve())
    job = e.Export(run=str(run.path), kind=options.kind, to=to, replace=options.replace)
    return _export(job, as_json=options.json)


def _export(job: e.Export, *, as_json: bool) -> int:
    with _engine(job) as process:
        for event in process.events():
            if as_json:
                _print_event(event)
            match event:
                case e.Checked(name=name, passed=passed, detail=detail) if not as_json:
                    OUT.print(f"{'✓' if passed else '✗'} {name}: {detail}", markup=False)
                case e.Exported(path=path, bytes=size) if not as_json:
                    OUT.print(f"Saved and checked: {path} ({size / 1e6:.1f} MB)", markup=False, soft_wrap=True)
                case e.Finished(outcome=outcome, problems=problems):
                    if not as_json:
                        show_problems(problems)
                    return _status(outcome, problems)
                case _:
                    pass
    return 1


def adapters(options: argparse.Namespace) -> int:
    """`tunedesk adapters`: those of your runs and those in the library."""
    found = list_adapters(options.model)
    if options.json:
        for item in found:
            _print_json(_adapter_row(item))
    else:
        terminal.show_adapters(found)
    return 0


def _adapter_row(item: Adapter) -> dict[str, Any]:
    return {**dataclasses.asdict(item), "path": str(item.path)}


def adapters_rename(options: argparse.Namespace) -> int:
    """`tunedesk adapters rename A NEW`."""
    adapter = rename_adapter(find_adapter_called(options.adapter), options.new)
    if options.json:
        _print_json(_adapter_row(adapter))
    else:
        OUT.print(f"It is called {adapter.name} now.", markup=False)
    return 0


def adapters_delete(options: argparse.Namespace) -> int:
    """`tunedesk adapters delete A`."""
    adapter = find_adapter_called(options.adapter)
    if not options.yes and not _agreed(adapter, asks=not options.json and sys.stdin.isatty()):
        return 130
    delete_adapter(adapter)
    if options.json:
        _print_json({"deleted": _adapter_row(adapter)})
    else:
        kept = " Its run, with checkpoints and report, stays." if adapter.origin == "run" else ""
        OUT.print(f"Deleted {adapter.name}.{kept}", markup=False)
    return 0


def _agreed(adapter: Adapter, *, asks: bool) -> bool:
    """Whether the person says yes. Raises `ProblemError` where nobody can be asked."""
    if not asks:
        raise ProblemError(
            Problem(
                code="cli.confirm",
                what=f"Deleting '{adapter.name}' cannot be undone.",
                where=str(adapter.path),
                fix="Add --yes to delete it.",
            )
        )
    try:
        return input(f"Delete {adapter.name} ({adapter.bytes / 1e6:.1f} MB)? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def adapters_import(options: argparse.Namespace) -> int:
    """`tunedesk adapters import FOLDER --model M`."""
    source = str(Path(options.folder).expanduser().absolute())
    return _add_adapter(e.ImportAdapter(source=source, model=options.model, name=options.called), as_json=options.json)


def adapters_combine(options: argparse.Namespace) -> int:
    """`tunedesk adapters combine A=0.7 B=0.3 --name N`."""
    parts = [_weighted(text) for text in options.parts]
    found = _chosen([name for name, _ in parts])
    paths, weights = tuple(str(item.path) for item in found), tuple(weight for _, weight in parts)
    job = e.CombineAdapters(adapters=paths, weights=weights, name=options.called)
    return _add_adapter(job, as_json=options.json)


def _add_adapter(job: e.ImportAdapter | e.CombineAdapters, *, as_json: bool) -> int:
    with _engine(job) as process:
        for event in process.events():
            if as_json:
                _print_event(event)
            match event:
                case e.Stage(text=text) if not as_json and ERR.is_terminal:
                    ERR.print(text + " …", style="dim")
                case e.Notice(text=text) if not as_json:
                    ERR.print(text, style="dim", markup=False)
                case e.AdapterAdded(name=name, bytes=size, path=path) if not as_json:
                    OUT.print(f"Added {name} ({size / 1e6:.1f} MB): {path}", markup=False, soft_wrap=True)
                case e.Finished(outcome=outcome, problems=problems):
                    if not as_json:
                        show_problems(problems)
                    return _status(outcome, problems)
                case _:
                    pass
    return 1


def _weighted(text: str) -> tuple[str, float]:
    """An adapter's name and its weight from ``NAME=0.7``. Raises `ProblemError`."""
    name, _, number = text.rpartition("=")
    try:
        return name, float(number) if name else float("x")
    except ValueError:
        what = f"{text} is not of the form NAME=WEIGHT."
        fix = "For example: tunedesk adapters combine Polite=0.7 Short=0.3 --name Both"
        raise ProblemError(Problem(code="cli.weight", what=what, fix=fix)) from None


def adapters_export(options: argparse.Namespace) -> int:
    """`tunedesk adapters export A --to DIR`."""
    adapter = find_adapter_called(options.adapter)
    to = str(Path(options.to).expanduser().resolve())
    return _export(e.Export(adapter=str(adapter.path), to=to, replace=options.replace), as_json=options.json)


def runs(options: argparse.Namespace) -> int:
    """`tunedesk runs`."""
    from rich.table import Table

    table = Table("Run", "Name", "Method", "Status", box=None, pad_edge=False)
    table.add_column("Held-out loss", justify="right")
    for run in list_runs():
        row = _run_row(run)
        if options.json:
            _print_json(row)
        else:
            loss = f"{row['best_loss']:.3f}" if row["best_loss"] is not None else "–"
            table.add_row(escape(run.id), escape(row["name"] or ""), row["method"] or "", row["status"], loss)
    if options.json:
        return 0
    if table.row_count:
        OUT.print(table)
    else:
        OUT.print(f"No runs yet in {runs_dir()}.", markup=False, soft_wrap=True)
    return 0


def _run_row(run: RunFolder) -> dict[str, Any]:
    row: dict[str, Any] = {"id": run.id, "path": str(run.path), "name": None, "method": None, "best_loss": None}
    try:
        spec, state = run.spec(), run.state()
    except ProblemError as error:
        return {**row, "status": "unreadable", "problems": [item.model_dump() for item in error.problems]}
    return {
        **row,
        "name": spec.name,
        "method": spec.method.name,
        "status": state.status,
        "best_loss": state.best.loss if state.best else None,
        "steps": state.step,
        "problems": [item.model_dump() for item in state.problems],
    }


def starter(options: argparse.Namespace) -> int:
    """`tunedesk starter`."""
    from tunedesk.core.starter import fetch

    say: Callable[[str], None] = (lambda _text: None) if options.json else (lambda text: OUT.print(text, markup=False))
    fetched = {name: str(fetch(name, say)) for name in ("chat", "encoder")}
    _collect(e.InspectModel(source="starter:chat"), (), say)  # unpacks it, so that the first start need not wait
    result: dict[str, Any] = {"models": fetched, "data": str(starter_data("support"))}
    if not options.fetch_only:
        path = Path(options.to).expanduser() / "RUN.toml"
        _write_example(path)
        result["run_file"] = str(path)
        say(f"Wrote {path}. Start with: tunedesk train {path}")
    if options.json:
        _print_json(result)
    return 0


def _write_example(path: Path) -> None:
    text = RunSpec(name="Support desk").to_toml()
    if path.exists():
        if path.read_text(encoding="utf-8", errors="replace") == text:
            return
        raise ProblemError(
            Problem(
                code="spec.exists",
                what=f"{path} is there already.",
                found="Nothing is written over.",
                fix="Name another folder with --to.",
            )
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ProblemError(cannot_write(path, error)) from error


def doctor(options: argparse.Namespace) -> int:
    """`tunedesk doctor`: nothing in it names the user, their files or their network."""
    hardware = read_hardware()
    report: dict[str, Any] = {
        "tunedesk": __version__,
        "python": platform.python_version(),
        "system": hardware.system,
        "cpu": hardware.cpu,
        "physical_cores": hardware.physical_cores,
        "fast_bf16": hardware.fast_bf16,
        "memory_total_bytes": hardware.memory_total,
        "memory_free_bytes": hardware.memory_free,
        "disk_free_bytes": hardware.disk_free,
        "gpus": [gpu.model_dump() for gpu in hardware.gpus],
        "gpu_note": hardware.gpu_note,
        "packages": {name: _version(name) for name in PACKAGES},
        "training": _probe(),
    }
    if options.json:
        _print_json(report)
        return 0
    _show_doctor(report)
    return 0


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _probe() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tunedesk.engine.probe"], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode == 0:
        with suppress(json.JSONDecodeError):
            return dict(json.loads(done.stdout))
    last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
    return {"problem": last[0].replace(str(Path.home()), "~")}


def _show_doctor(report: dict[str, Any]) -> None:
    from rich.table import Table

    gib = terminal.gib
    training = report["training"]
    rows = [
        ("TuneDesk", report["tunedesk"]),
        ("Python", report["python"]),
        ("System", report["system"]),
        ("Processor", f"{report['cpu']}, {report['physical_cores']} cores"),
        ("bf16 in hardware", "yes" if report["fast_bf16"] else "no"),
        ("Memory", f"{gib(report['memory_free_bytes'])} of {gib(report['memory_total_bytes'])} free"),
        ("Disk", f"{gib(report['disk_free_bytes'])} free"),
    ]
    for gpu in report["gpus"]:
        memory = f"{gib(gpu['free_bytes'])} of {gib(gpu['total_bytes'])} free, driver {gpu['driver']}"
        rows.append(("GPU", f"{gpu['name']}, {memory}"))
    if not report["gpus"]:
        rows.append(("GPU", f"none. {report['gpu_note']}"))
    rows += list(report["packages"].items())
    if "problem" in training:
        rows.append(("Training", f"does not work: {training['problem']}"))
    else:
        devices = ", ".join(training["cuda_devices"]) or (
            "Apple GPU" if training["mps_available"] else "processor only"
        )
        rows += [("Training on", devices), ("4-bit weights", training["four_bit"])]
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows:
        table.add_row(name, str(value))
    OUT.print(table)


# Helpers.


@contextmanager
def _engine(job: e.Job, log_file: Path | None = None, events_file: Path | None = None) -> Iterator[EngineProcess]:
    """A started engine that is gone when the block ends, however it ends."""
    log_file = log_file or cache_dir() / "logs" / f"{job.job}.log"
    process = EngineProcess(job, log_file, events_file)
    try:
        process.start()
    except OSError as error:
        raise ProblemError(cannot_write(log_file, error)) from error
    try:
        yield process
    finally:
        if not process.finished:
            process.send(e.Stop())
        if process.wait(10) is None:  # after its last event, too: what comes next may need the run's folder or the GPU
            process.kill()


class _Signals:
    """What the person has asked for by Ctrl+C so far: to stop, and then to end at once."""

    asked = False
    forced = False


@contextmanager
def _stop_on_signals(process: EngineProcess) -> Iterator[_Signals]:
    """Ctrl+C and SIGTERM stop the run after the step at hand; a second one ends it at once."""
    signals = _Signals()

    def stop(_number: int, _frame: object) -> None:
        if signals.asked:
            signals.forced = True
            process.kill()
            return
        signals.asked = True
        ERR.print("Stopping after this step. Once more ends it at once.")
        process.send(e.Stop())

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _collect(job: e.Job, wanted: tuple[type, ...], say: Callable[[str], None] = lambda _text: None) -> list[e.Event]:
    """Run a short job and keep its answers; `say` hears what it is doing. Raises `ProblemError` when it failed."""
    found: list[e.Event] = []
    with _engine(job) as process:
        for event in process.events():
            if isinstance(event, e.Stage):
                say(f"{event.text} …")
            if isinstance(event, wanted):
                found.append(event)
            if isinstance(event, e.Finished) and event.problems:
                raise ProblemError(event.problems)
    return found


def _status(outcome: str, problems: Sequence[Problem]) -> int:
    if outcome == "stopped":
        return 130
    if outcome == "completed" and not problems:
        return 0
    return 1 if any(problem.code.startswith(INTERNAL) for problem in problems) or not problems else 2


def _fail(problems: Sequence[Problem], *, as_json: bool) -> int:
    if as_json:
        _print_json({"problems": [problem.model_dump() for problem in problems]})
    else:
        show_problems(problems)
    return _status("failed", problems)


def _print_event(event: e.Event) -> None:
    sys.stdout.write(e.write_line(event))
    sys.stdout.flush()


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _pair(text: str) -> tuple[str, str]:
    name, sign, column = text.partition("=")
    if not sign:
        raise ProblemError(
            Problem(
                code="cli.column",
                what=f"--column {text} is not of the form ROLE=COLUMN.",
                fix="For example: --column prompt=question --column completion=answer",
            )
        )
    return name.strip(), column.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tunedesk",
        description="Fine-tune language models on the computer you already own. Without a command it opens the window.",
    )
    parser.add_argument("--version", action="version", version=f"tunedesk {__version__}")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], words: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=words, description=words[:1].upper() + words[1:] + ".")
        sub.add_argument("--json", action="store_true", help="print JSON lines only")
        sub.set_defaults(command=command)
        return sub

    def add_spec(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("file", metavar="RUN.toml")
        sub.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. training.seed=1"
        )

    sub = add("train", train, "train what a run file says")
    add_spec(sub)
    sub.add_argument("--out", metavar="DIR", help="the run's folder (default: a new one among your runs)")
    add("resume", resume, "go on with a run from its last checkpoint").add_argument("run", metavar="RUN_DIR")
    sub = add("plan", plan, "will it fit, and what to change")
    add_spec(sub)
    sub.add_argument("--device", default="auto", help='auto, cpu, cuda, mps or a card such as "RTX 3060:12GiB"')
    sub = add("data", data, "what is in a file, and what the model would see")
    sub.add_argument("file", metavar="FILE")
    sub.add_argument("--model", metavar="M", help="see it with this model's eyes")
    sub.add_argument("--task", choices=["auto", *TASKS], default="auto")
    sub.add_argument("--problem-type", choices=["auto", *get_args(ProblemType)], default="auto")
    sub.add_argument("--preference-loss", choices=["dpo", "kto", "orpo"], default="dpo")
    sub.add_argument("--column", action="append", default=[], metavar="ROLE=COLUMN", help="e.g. prompt=question")
    _add_methods(add("methods", methods, "every method: what it is for, what it costs, when not to use it"))
    _add_chat(add("chat", chat, "talk to a run or a model"))
    sub = add("export", export, "save a run's adapter and check it")
    sub.add_argument("run", metavar="RUN_DIR")
    sub.add_argument("--as", dest="kind", choices=["adapter"], required=True)
    sub.add_argument("--to", metavar="DIR", required=True)
    sub.add_argument("--replace", action="store_true", help="replace what is there, once the new one is checked")
    add("runs", runs, "list your runs")
    _add_adapters(add("adapters", adapters, "list adapters; rename, delete, import, export and combine them"))
    sub = add("starter", starter, "fetch the starter models and write an example RUN.toml")
    sub.add_argument("--fetch-only", action="store_true", help="fetch the models and write nothing else")
    sub.add_argument("--to", metavar="DIR", default=".", help="where RUN.toml is written")
    add("doctor", doctor, "hardware, versions and what works here; safe to paste in public")
    return parser


def _add_methods(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("method", metavar="NAME", nargs="?", help="one method in full")
    sub.add_argument("--model", metavar="M", help="which methods work on this model, and how much of it they train")
    sub.add_argument("--task", choices=TASKS)
    sub.add_argument("--labels", type=int, default=2, metavar="N", help="how many labels (default: 2)")
    sub.add_argument("--matrix", action="store_true", help="every method with every task and family")
    sub.add_argument("--advise", action="store_true", help="which method suits; asks what these options do not say:")
    sub.add_argument("--rows", type=int, metavar="N", help="rows of training data")
    sub.add_argument(
        "--memory", metavar="M", help="beside the model: ample, fits, tight, short; or a size such as 12GiB"
    )
    sub.add_argument("--keep-skills", dest="keep", choices=["little", "some", "much"], help="how much they matter")
    sub.add_argument("--parameters", type=_count, metavar="N", help="weights of the model, such as 7B or 135M")
    sub.add_argument("--shift", choices=["near", "far"], default="near", help="far: a new language or domain")
    sub.add_argument("--tasks", type=int, default=1, metavar="N", help="tasks that share one model")
    sub.add_argument("--one-file", action="store_true", help="a single plain model must come out")
    sub.add_argument("--manner", action="store_true", help="a tone or persona is wanted, not a skill")
    sub.add_argument("--changing", action="store_true", help="the data holds facts that soon change")
    sub.add_argument("--prompting", choices=["untried", "enough", "weak"], default="untried", help="how far it got")
    sub.add_argument("--last-point", action="store_true", help="the last point of quality is worth any price")
    sub.add_argument("--new-parts", action="store_true", help="the network itself is to change")
    sub.add_argument(
        "--unknown-network", dest="known", action="store_false", help="it is no transformer of a common family"
    )


def _add_adapters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="M", help="only those of this model")
    actions = parser.add_subparsers(metavar="ACTION")

    def add(name: str, command: Callable[[argparse.Namespace], int], words: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=words, description=words[:1].upper() + words[1:] + ".")
        sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON lines only")
        sub.set_defaults(command=command)
        return sub

    sub = add("rename", adapters_rename, "call an adapter by another name")
    sub.add_argument("adapter", metavar="ADAPTER", help="its name, id or folder")
    sub.add_argument("new", metavar="NEW")
    sub = add("delete", adapters_delete, "delete an adapter; of a run the checkpoints and the report stay")
    sub.add_argument("adapter", metavar="ADAPTER", help="its name, id or folder")
    sub.add_argument("--yes", action="store_true", help="do not ask")
    sub = add("import", adapters_import, "take an adapter that was made elsewhere into the library, once it is checked")
    sub.add_argument("folder", metavar="FOLDER", help="with adapter_config.json and adapter_model.safetensors")
    sub.add_argument("--model", metavar="M", required=True, help="the model that it was trained on")
    sub.add_argument("--name", dest="called", metavar="NAME", help="what to call it (default: its folder's name)")
    sub = add("export", adapters_export, "save an adapter for use elsewhere and check it")
    sub.add_argument("adapter", metavar="ADAPTER", help="its name, id or folder")
    sub.add_argument("--to", metavar="DIR", required=True)
    sub.add_argument("--replace", action="store_true", help="replace what is there, once the new one is checked")
    sub = add("combine", adapters_combine, "add LoRA adapters of one model up by weights, exactly")
    sub.add_argument("parts", metavar="ADAPTER=WEIGHT", nargs="+", help="such as Polite=0.7")
    sub.add_argument("--name", dest="called", metavar="NAME", required=True, help="what to call the sum")


def _count(text: str) -> int:
    """A number such as ``7B``, ``135M`` or ``66,000,000``."""
    scale = {"k": 10**3, "m": 10**6, "b": 10**9}.get(text[-1:].lower(), 1)
    number = text[:-1] if scale > 1 else text
    try:
        return int(float(number.replace(",", "")) * scale)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number such as 7B, 135M or 66000000") from None


def _add_chat(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("what", metavar="RUN_DIR|MODEL")
    sub.add_argument(
        "--prompt", action="append", default=[], help="ask this and end; each one is a conversation of its own"
    )
    sub.add_argument("--base", action="store_true", help="answer without the adapter")
    sub.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="A",
        help="an adapter of this model by name, id or folder; with several and --prompt, each answers",
    )
    sub.add_argument("--system", help="system prompt")
    sub.add_argument("--temperature", type=float, help="0 is greedy (default 0 with --prompt, else 0.7)")
    sub.add_argument("--top-p", type=float, default=0.95)
    sub.add_argument("--max-new-tokens", type=int, default=256)
    sub.add_argument("--seed", type=int, default=0)
