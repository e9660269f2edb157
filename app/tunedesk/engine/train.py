"""Training a run, from its folder to its adapter. Reads from top to bottom."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch

from tunedesk.core.describe import DataInfo, ModelInfo
from tunedesk.core.events import (
    AdapterSaved,
    CheckpointSaved,
    DataDescribed,
    Evaluated,
    ForgettingChecked,
    ModelDescribed,
    PlanMade,
    SaveNow,
    Stage,
    StepDone,
    Train,
    TrainingBegan,
)
from tunedesk.core.hardware import GIB, Device
from tunedesk.core.plan import PACK_TOKENS, Plan, Resolved, make_plan
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.core.runs import RunFolder, open_run, write_json
from tunedesk.core.spec import RunSpec
from tunedesk.engine import checkpoints, loading
from tunedesk.engine.ahead import Ahead
from tunedesk.engine.batches import LABEL_ROUND, ROUND, Steps
from tunedesk.engine.channel import Channel, Stopped
from tunedesk.engine.checkpoints import Progress, RandomState, after
from tunedesk.engine.describe_data import ticker
from tunedesk.engine.fast.encoder import make_lean_classifier
from tunedesk.engine.fast.flat_adamw import FlatAdamW
from tunedesk.engine.fast.model import make_fast, make_fast_classifier
from tunedesk.engine.forgetting import GeneralText
from tunedesk.engine.label_head import LabelHead
from tunedesk.engine.learner import Check, Learner, evaluate
from tunedesk.engine.material import Material, Tokens, describe, gather, head_for, length_limit, renderer_of, tokenise
from tunedesk.engine.methods import Setting, Tuned, attach, trainable
from tunedesk.engine.objectives import Label, NextToken, Objective, Preference, Seq2Seq, balance
from tunedesk.engine.objectives.seq2seq import ANSWER_TOKENS
from tunedesk.engine.records import check_same_data, read_resolved, with_recorded, write_environment
from tunedesk.engine.remarks import Remarks
from tunedesk.engine.render import TokenRow, cut_rows
from tunedesk.engine.sources import resolve

Outcome = Literal["completed", "stopped"]

_SAVE_SECONDS = 300.0
"""Longest time without a checkpoint."""


def train(job: Train, channel: Channel) -> Outcome:
    """Train the run in `job.run`, or go on with it. Raises `ProblemError`, and `Stopped` before the first step."""
    with ExitStack() as ending:
        return _train(job, channel, ending)


def _train(job: Train, channel: Channel, ending: ExitStack) -> Outcome:
    run = open_run(Path(job.run))
    spec = run.spec()
    _check_state(run, job.resume)
    say = Remarks(channel)
    loading.use_physical_cores()
    seed_everything(spec.training.seed)

    channel.emit(Stage(text="Reading the model"))
    info = resolve(spec.model.source, spec.model.revision, channel)
    loading.check_task(info, spec.task.kind, spec.method.name)
    channel.emit(ModelDescribed(info=info))
    info = room_for_text(info, spec.method.places_taken)
    device = loading.pick_device(spec.training.device)
    tokenizer = loading.load_tokenizer(info)

    channel.emit(Stage(text="Reading the rows"))
    task = spec.task
    material = gather(
        spec.data, task.kind, spec.training.seed, ticker(channel), task.problem_type, task.preference_loss
    )
    recorded = read_resolved(run) if job.resume else None
    if recorded is not None:
        check_same_data(run, material)
        spec = with_recorded(spec, recorded)
    channel.emit(Stage(text="Turning the rows into tokens"))
    tokens = tokenise(material, renderer_of(material, tokenizer, info), ticker(channel), info)
    loading.check_vocabulary(info, max(max(row.ids) for row in (*tokens.train, *tokens.held)))
    plan, data = _plan(spec, info, material, tokens, device)
    resolved = plan.resolved
    channel.emit(DataDescribed(info=data))
    channel.emit(PlanMade(plan=plan))
    _warn_ahead(plan, data, info, say)
    train_rows = cut_rows(tokens.train, resolved.max_length)[0]
    held_rows = cut_rows(tokens.held, resolved.max_length)[0]
    write_environment(run, info, material, data, plan, tokenizer)
    if channel.stop_asked:
        raise Stopped

    channel.emit(Stage(text="Loading the model"))
    head = head_for(material)
    learner = _load(spec, info, resolved, loading.torch_device(device), tokenizer.pad_token_id or 0, head, train_rows)
    general = GeneralText(learner, tokenizer, info, spec.task.kind, channel) if spec.training.forgetting else None
    progress, chance = Progress(), checkpoints.random_state()
    if job.resume:
        progress, chance = _continue(run, learner, say)
    warmup = round(spec.training.warmup_ratio * resolved.total_steps)
    began = TrainingBegan(
        first_step=progress.step + 1,
        total_steps=resolved.total_steps,
        steps_per_epoch=resolved.steps_per_epoch,
        train_rows=len(train_rows),
        eval_rows=len(held_rows),
        trainable_parameters=sum(parameter.numel() for parameter in learner.parameters),
        total_parameters=learner.base_parameters,
        weight_bytes=learner.base_bytes,
        peak_learning_rate=resolved.learning_rate,
        warmup_steps=warmup,
        scheduler=spec.training.lr_scheduler,
        device=device.name,
        precision=resolved.precision,
    )

    held = learner.objective.batches(held_rows)
    if held and progress.base_loss is None:
        channel.emit(Stage(text="Checking the untouched model"))
        with learner.tuned.untouched():
            check = evaluate(learner, held, channel)
        if not check.sound:
            raise ProblemError(broken_base(info, resolved))
        progress = after(progress, base_loss=check.loss)
        channel.emit(began)
        channel.emit(_evaluated(0, check, best=False))
    else:
        channel.emit(began)

    per_step = resolved.micro_batch_size * resolved.gradient_accumulation_steps
    steps = Steps(train_rows, per_step, spec.training.seed, learner.objective.grouped)
    ahead = ending.enter_context(
        Ahead(lambda step: learner.objective.batches(steps.rows(step)), progress.step + 1, resolved.total_steps)
    )
    checkpoints.restore_random(chance)
    saved_step, saved_at = progress.step, time.monotonic()
    losses: list[float] = []
    stopped = False
    learner.model.train()
    for step in range(progress.step + 1, resolved.total_steps + 1):
        # One step: the losses of all its micro-batches, each trained token weighing the same.
        start = time.monotonic()
        batches = ahead.take(step)
        trained_tokens = sum(batch.trained for batch in batches)
        loss_sum = 0.0
        learner.optimiser.zero_grad(set_to_none=True)
        for batch in batches:
            if channel.stop_asked:
                stopped = True
                break
            loss = learner.objective.loss(batch)
            loss_sum += loss.item()
            if not math.isfinite(loss_sum):
                break
            torch.autograd.backward(learner.scaler.scale(loss / trained_tokens))
        if stopped:
            break
        if (penalty := learner.tuned.penalty()) is not None:
            torch.autograd.backward(learner.scaler.scale(penalty))
        mean_loss = loss_sum / trained_tokens
        rate = learning_rate(step, resolved.learning_rate, resolved.total_steps, warmup, spec.training.lr_scheduler)
        norm = math.nan
        if math.isfinite(mean_loss):
            learner.scaler.unscale_(learner.optimiser)
            norm = learner.clip(spec.training.max_grad_norm)
        sound = math.isfinite(mean_loss) and (math.isfinite(norm) or learner.scaler.is_enabled())
        if sound:
            for group in learner.optimiser.param_groups:
                group["lr"] = rate * group.get("ratio", 1.0)
            learner.scaler.step(learner.optimiser)
            learner.scaler.update()
            if math.isfinite(norm):
                learner.tuned.after_step(step)
        seconds = time.monotonic() - start
        step_tokens = sum(batch.tokens for batch in batches)
        memory = memory_bytes(learner.device)
        channel.emit(
            StepDone(
                step=step,
                epoch=step / resolved.steps_per_epoch,
                loss=mean_loss,
                learning_rate=rate,
                gradient_norm=norm,
                tokens=step_tokens,
                trained_tokens=trained_tokens,
                seconds=seconds,
                memory_bytes=memory,
            )
        )
        if not sound:
            _report(run, progress, plan, began, "failed", None)
            raise ProblemError(not_a_number(step, math.isfinite(mean_loss), rate, resolved, run))
        losses.append(mean_loss)
        before = progress
        progress = after(
            progress,
            step=step,
            last_loss=mean_loss,
            tokens=progress.tokens + step_tokens,
            trained_tokens=progress.trained_tokens + trained_tokens,
            seconds=progress.seconds + seconds,
            peak_memory=max(progress.peak_memory, memory),
        )
        chance = checkpoints.random_state()
        if step % resolved.steps_per_epoch == 0 and step < resolved.total_steps:
            say.epoch(step // resolved.steps_per_epoch + 1, step)

        # A check on the held-out rows.
        if held and (step % resolved.eval_steps == 0 or step == resolved.total_steps):
            try:
                check = evaluate(learner, held, channel)
            except Stopped:
                stopped = True
                break
            finally:
                learner.model.train()
            progress = with_check(progress, check)
            channel.emit(_evaluated(step, check, best=progress.best_step == step))
            if not check.sound:
                _report(run, progress, plan, began, "failed", None)
                raise ProblemError(not_a_number(step, False, rate, resolved, run))

        # A checkpoint.
        asked = save_asked(channel)
        late = time.monotonic() - saved_at > _SAVE_SECONDS
        due = step % resolved.save_steps == 0 or step == resolved.total_steps or progress.best_step == step
        if due or late or asked:
            size = _save(run, learner, progress, chance, spec, channel)
            saved_step, saved_at = step, time.monotonic()
            if asked or progress.best_step != step:
                say.saved(size, step, resolved.save_steps, asked)
        if progress.last_eval is not None and progress is not before:
            say.checked(before, progress, falling(losses, resolved.eval_steps))

    # The end: what was learned is put in its place, and what it cost looked at.
    forgotten: ForgettingChecked | None = None
    if stopped and progress.step > saved_step:
        _save(run, learner, progress, chance, spec, channel)
    kept = _keep(run, learner, progress, tokenizer, info, spec, channel)
    if stopped:
        _say_stopped(progress, kept, say)
    elif general is not None and kept is not None:
        forgotten = _look_back(run, learner, general, progress, kept, channel)
    outcome: Outcome = "stopped" if stopped else "completed"
    _report(run, progress, plan, began, outcome, kept, forgotten)
    return outcome


def room_for_text(info: ModelInfo, taken: int) -> ModelInfo:
    """`info` with the context that is left for text, padded, when a method takes `taken` places of it.

    Raises `ProblemError` when nothing is left.
    """
    if not taken or info.context_length is None:
        return info
    step = LABEL_ROUND if info.kind == "encoder" else ROUND
    left = (info.context_length - taken) // step * step
    if left < step:
        raise ProblemError(
            Problem(
                code="method.virtual_tokens",
                what="The virtual tokens leave no room for text.",
                where="RUN.toml, key 'virtual_tokens' in [method].",
                found=f"{info.name} reads {info.context_length:,} tokens, and virtual_tokens is {taken:,}.",
                fix="Choose fewer; 20 are usual.",
            )
        )
    return info.model_copy(update={"context_length": left})


def seed_everything(seed: int) -> None:
    """Make torch, numpy and Python draw the same numbers each time."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def learning_rate(step: int, peak: float, total: int, warmup: int, scheduler: str) -> float:
    """The rate of `step` (from 1): up to `peak` in `warmup` steps, then along the schedule, never quite to 0."""
    if step <= warmup:
        return peak * step / warmup
    share = (step - 1 - warmup) / max(1, total - warmup)
    match scheduler:
        case "cosine":
            return peak * 0.5 * (1 + math.cos(math.pi * share))
        case "linear":
            return peak * (1 - share)
        case _:
            return peak


def _evaluated(step: int, check: Check, best: bool) -> Evaluated:
    return Evaluated(
        step=step,
        loss=check.loss,
        best=best,
        trained_tokens=check.trained,
        seconds=check.seconds,
        metrics=check.measures.values,
        confusion=check.measures.confusion,
    )


def with_check(progress: Progress, check: Check) -> Progress:
    """`progress` after `check`."""
    loss = check.loss
    rises = progress.rises + 1 if progress.last_eval is not None and loss > progress.last_eval else 0
    progress = after(progress, last_eval=loss, rises=rises)
    if check.sound and (progress.best_loss is None or loss < progress.best_loss):
        return after(
            progress,
            best_loss=loss,
            best_step=progress.step,
            metrics=check.measures.values,
            confusion=check.measures.confusion,
        )
    return progress


def falling(losses: list[float], window: int) -> bool:
    """Whether the mean of the last `window` training losses is below that of the window before."""
    window = min(window, len(losses) // 2)
    if not window:
        return False
    return sum(losses[-window:]) < sum(losses[-2 * window : -window])


def save_asked(channel: Channel) -> bool:
    """Whether a `SaveNow` has come; other commands are passed over."""
    asked = False
    while (command := channel.take()) is not None:
        asked = asked or isinstance(command, SaveNow)
    return asked


def memory_bytes(device: torch.device) -> int:
    """The peak on a CUDA device so far, or what this process holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def not_a_number(step: int, loss_is_sound: bool, rate: float, resolved: Resolved, run: RunFolder) -> Problem:
    """The problem of a loss or gradient that is infinite or not a number."""
    thing = "gradient" if loss_is_sound else "loss"
    whole = checkpoints.whole_checkpoints(run)
    safe = f"Weights are safe at step {whole[-1][0]:,}." if whole else "No checkpoint was written before."
    lower = f"{resolved.learning_rate / 10:.0e}".replace("e-0", "e-")
    return Problem(
        code="train.not_a_number",
        what=f"The {thing} is not a number since step {step:,}. {safe}",
        where=f"Step {step:,} of {resolved.total_steps:,}, learning rate {rate:.1e}.",
        found=f"The peak learning rate is {resolved.learning_rate:g}, the precision {resolved.precision}.",
        fix=f"Set training.learning_rate = {lower}, then " + ("resume." if whole else "start again."),
    )


def broken_base(info: ModelInfo, resolved: Resolved) -> Problem:
    """The problem of a model whose loss is not a number before anything was trained."""
    return Problem(
        code="model.not_a_number",
        what=f"The untouched {info.name} gives a loss that is not a number.",
        where=info.path or "",
        found=f"Its weights are damaged, or too large for {resolved.precision}.",
        fix="Download the model again."
        if resolved.precision == "fp32"
        else 'Download the model again, or set training.precision = "fp32".',
    )


def _check_state(run: RunFolder, resume: bool) -> None:
    if resume and run.outcome() == "completed":
        raise ProblemError(
            Problem(
                code="run.complete",
                what="This run is complete; there is nothing to resume.",
                where=str(run.path),
                fix="Start a new run to train longer.",
            )
        )
    if not resume and checkpoints.whole_checkpoints(run):
        raise ProblemError(
            Problem(
                code="run.started",
                what="This run has begun already and has checkpoints.",
                where=str(run.checkpoints),
                fix=f"`tunedesk resume {run.path}` goes on from the last; or start a new run.",
            )
        )


def _plan(spec: RunSpec, info: ModelInfo, material: Material, tokens: Tokens, device: Device) -> tuple[Plan, DataInfo]:
    """The plan, and the data described at the length that the plan settles on."""
    plan = make_plan(spec, info, describe(material, tokens, length_limit(spec.training.max_length, info)), device)
    length = min(plan.resolved.max_length, info.context_length or plan.resolved.max_length)
    data = describe(material, tokens, length)
    fixed = spec.training.model_copy(update={"max_length": length})
    return make_plan(spec.model_copy(update={"training": fixed}), info, data, device), data


def _warn_ahead(plan: Plan, data: DataInfo, info: ModelInfo, say: Remarks) -> None:
    if not plan.fits:
        needs, free = plan.asked.peak_bytes / GIB, plan.device.free_bytes / GIB
        say.warn(f"Needs about {needs:.1f} GiB, and {free:.1f} GiB is free: it may run out of memory. Trying anyway.")
    if info.context_length and plan.resolved.max_length == info.context_length and data.tokens is not None:
        say.info(f"Rows are cut at {info.context_length:,} tokens: the model reads no further.") if (
            data.tokens.cut_rows
        ) else None
    for finding in data.findings:
        if finding.level == "warn":
            say.warn(finding.text)


def _load(
    spec: RunSpec,
    info: ModelInfo,
    resolved: Resolved,
    device: torch.device,
    pad_id: int,
    head: LabelHead | None,
    rows: Sequence[TokenRow],
) -> Learner:
    training = spec.training
    torch.manual_seed(training.seed)  # a new head is drawn at random
    base = loading.load_base(info, resolved.precision, device, spec.method.packed, head=head)
    count, held = loading.parameter_count(base), loading.weight_bytes(base)
    setting = Setting(
        section=spec.method,
        alpha=resolved.alpha,
        checkpointing=resolved.gradient_checkpointing,
        seed=training.seed,
        total_steps=resolved.total_steps,
        tokenizer=info.path,
        compares=spec.task.compares,
    )
    tuned = attach(base, setting)
    model, parameters, groups = tuned.model, trainable(tuned.model), tuned.groups()
    fast = training.engine == "fast"
    lean = fast and tuned.lean
    optimiser: torch.optim.Optimizer
    if fast and len(groups) == 1:
        optimiser = FlatAdamW(parameters, resolved.learning_rate, training.weight_decay)
    else:
        parts = [{"params": part, "ratio": ratio} for part, ratio in groups]
        optimiser = torch.optim.AdamW(parts, lr=resolved.learning_rate, weight_decay=training.weight_decay)
    common: dict[str, Any] = {
        "model": model,
        "device": device,
        "precision": resolved.precision,
        "pad_id": pad_id,
        "micro_batch_size": resolved.micro_batch_size,
    }
    objective: Objective
    reader: Objective | None = None
    if head:
        joined = make_fast_classifier(model) if lean else None
        labels = joined or (make_lean_classifier(model) if lean else None)
        objective = Label(fast=labels, pack_tokens=_pack_tokens(resolved), head=head, grouped=joined is None, **common)
    elif info.kind == "seq2seq":
        most = min(ANSWER_TOKENS, info.context_length or ANSWER_TOKENS)
        objective = Seq2Seq(tokenizer=loading.load_tokenizer(info), answer_tokens=most, **common)
        reader = replace(objective, asked=0)
    else:
        packed = make_fast(model) if lean else None
        grouped = fast and packed is None
        objective = NextToken(fast=packed, pack_tokens=_pack_tokens(resolved), grouped=grouped, **common)
        reader = objective
        if spec.task.kind == "preference":
            objective = _preference(spec, resolved, tuned, objective, rows)
    return Learner(
        tuned=tuned,
        objective=objective,
        reader=reader,
        parameters=parameters,
        optimiser=optimiser,
        scaler=torch.amp.GradScaler(device.type, enabled=resolved.precision == "fp16"),
        device=device,
        base_parameters=count,
        base_bytes=held,
    )


def _preference(
    spec: RunSpec, resolved: Resolved, tuned: Tuned, reader: NextToken, rows: Sequence[TokenRow]
) -> Preference:
    """The objective of preferences, which computes texts as `reader` does; a row may have two."""
    return Preference(
        tuned=tuned,
        fast=reader.fast,
        name=spec.task.preference_loss,
        beta=spec.task.strictness,
        device=reader.device,
        precision=reader.precision,
        pad_id=reader.pad_id,
        micro_batch_size=reader.micro_batch_size,
        pack_tokens=_pack_tokens(resolved, texts=2),
        max_length=resolved.max_length,
        weights=balance(rows),
        grouped=reader.grouped,
    )


def _pack_tokens(resolved: Resolved, texts: int = 1) -> int:
    """The largest pack: what a micro-batch may hold at most, and on a processor no more than makes it faster.

    A row has `texts` texts.
    """
    most = resolved.micro_batch_size * resolved.max_length * texts
    return most if resolved.device != "cpu" else min(most, max(PACK_TOKENS, resolved.max_length))


def _continue(run: RunFolder, learner: Learner, say: Remarks) -> tuple[Progress, RandomState]:
    """Weights, optimiser and chance of the last whole checkpoint; the beginning when there is none."""
    whole = checkpoints.whole_checkpoints(run)
    if not whole:
        say.info("There is no checkpoint to go on from; training starts at the beginning.")
        return Progress(), checkpoints.random_state()
    step, place = whole[-1]
    progress, chance = checkpoints.load_checkpoint(place, learner.tuned, learner.optimiser, learner.scaler)
    say.info(f"Going on from the checkpoint of step {step:,}.", step)
    return progress, chance


def _save(
    run: RunFolder, learner: Learner, progress: Progress, chance: RandomState, spec: RunSpec, channel: Channel
) -> int:
    place, size = checkpoints.save_checkpoint(run, learner.tuned, learner.optimiser, learner.scaler, progress, chance)
    checkpoints.prune(run, spec.training.keep_checkpoints, progress.best_step)
    channel.emit(CheckpointSaved(step=progress.step, path=str(place), bytes=size))
    return size


def _keep(
    run: RunFolder,
    learner: Learner,
    progress: Progress,
    tokenizer: Any,
    info: ModelInfo,
    spec: RunSpec,
    channel: Channel,
) -> int | None:
    """Write ``adapter/`` from the best checkpoint, or the last weights; gives their step, None before the first."""
    if not progress.step:
        return None
    place = run.checkpoints / f"step-{progress.best_step}"
    if progress.best_step is not None and checkpoints.checkpoint_step(place) is not None:
        files, step = checkpoints.read_adapter_files(place), progress.best_step
    else:
        files, step = checkpoints.adapter_files(learner.tuned), progress.step
    config = json.loads(files["adapter_config.json"])
    config["base_model_name_or_path"] = info.source if info.origin == "hub" else info.path
    config["revision"] = spec.model.revision
    files["adapter_config.json"] = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
    size = checkpoints.save_adapter(run, files, tokenizer)
    channel.emit(AdapterSaved(path=str(run.adapter), bytes=size, step=step))
    return step


def _look_back(
    run: RunFolder, learner: Learner, general: GeneralText, progress: Progress, kept: int, channel: Channel
) -> ForgettingChecked | None:
    """What the kept weights make of general text; None when that was cut short."""
    if kept != progress.step:
        checkpoints.put_weights(run.checkpoints / f"step-{kept}", learner.tuned)
    channel.emit(Stage(text="Looking at what was forgotten"))
    try:
        found = general.check(learner, kept, channel)
    except Stopped:
        return None
    channel.emit(found)
    return found


def _say_stopped(progress: Progress, kept: int | None, say: Remarks) -> None:
    if kept is None:
        say.info("Stopped before the first step was done; there is nothing to keep.")
    elif kept == progress.step:
        say.info(
            f"Stopped after step {progress.step:,}. Its weights are kept; Resume goes on from there.", progress.step
        )
    else:
        say.info(
            f"Stopped after step {progress.step:,}. The adapter has the weights of step {kept:,}, the best so far; "
            f"Resume goes on from step {progress.step:,}.",
            progress.step,
        )


def _report(
    run: RunFolder,
    progress: Progress,
    plan: Plan,
    began: TrainingBegan,
    outcome: str,
    adapter_step: int | None,
    forgotten: ForgettingChecked | None = None,
) -> None:
    write_json(
        run.report_file,
        {
            "outcome": outcome,
            "steps": progress.step,
            "total_steps": plan.resolved.total_steps,
            "base_loss": progress.base_loss,
            "best_loss": progress.best_loss,
            "best_step": progress.best_step,
            "last_eval_loss": progress.last_eval,
            "metrics": progress.metrics,
            "confusion": progress.confusion,
            "forgetting": forgotten and forgotten.model_dump(include={"measure", "before", "after", "tokens"}),
            "last_loss": progress.last_loss,
            "adapter_step": adapter_step,
            "seconds": round(progress.seconds, 3),
            "tokens": progress.tokens,
            "trained_tokens": progress.trained_tokens,
            "trainable_parameters": began.trainable_parameters,
            "total_parameters": began.total_parameters,
            "weight_bytes": began.weight_bytes,
            "peak_memory_bytes": progress.peak_memory,
            "predicted_memory_bytes": plan.asked.peak_bytes,
        },
    )
