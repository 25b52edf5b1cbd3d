"""The training loop: a generator that yields a `StepRecord` after each update, and an `Event` for
each change between two updates.
"""

import math
import time
from collections.abc import Generator, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from lab.config.changes import change_setting
from lab.config.methods import METHODS, MethodSpec, method_of
from lab.config.optimizer_settings import learning_rate_factor
from lab.config.reward_rules import logged_terms
from lab.config.run_config import RunConfig
from lab.distributed import collectives
from lab.distributed.cpu_threads import adapt_num_threads
from lab.distributed.fsdp import require_shardable
from lab.engine.decode_any_model import base_of
from lab.engine.samplers.registry import other_sampler
from lab.errors import LabError
from lab.models.context_length import require_positions
from lab.models.device import resolve_device
from lab.models.tokenizer import load_tokenizer
from lab.runs.control import Command, CommandPoller, Control
from lab.runs.metrics import METRICS
from lab.runs.records import Event, StepRecord
from lab.runs.states import EventKind
from lab.tasks.registry import task_of
from lab.training.checkpoints import restore_checkpoint
from lab.training.compatibility import (
    compatibility_notes,
    drop_overlong_prompts,
    longest_prompts,
    require_causal,
)
from lab.training.dropout_noise import dropout_noise
from lab.training.epochs import set_steps_of_epochs
from lab.training.flat_params import flat_params
from lab.training.method import EvalResult
from lab.training.method_hooks import attach_networks, evaluate_method, load_model
from lab.training.metric_means import MetricAccumulator
from lab.training.micro_batches import StandIn
from lab.training.optimizers import MATRIX_OPTIMIZERS, new_optimizer, require_optimizer
from lab.training.own_functions import backward
from lab.training.pair_agreement import evaluate_agreement
from lab.training.state import TrainState

COMMAND_POLL_SECONDS = 0.05


def prepare(
    config: RunConfig, state: dict[str, Any] | None = None, folder: Path | None = None
) -> TrainState:
    """Load the model, tokenizer and task of `config` and return the state before the next update.

    With `state`, a result of `make_checkpoint`, the run continues from there. A checkpoint holds
    the config with its live changes under "config"; pass `from_dict(state["config"])` to keep them.
    `folder` is the run's, where another engine for sampling reads the policy. Raises `LabError` for a
    model that cannot be trained, a checkpoint of another model, and an engine that cannot be reached.
    """
    require_shardable(config)
    device = resolve_device(config.device)
    require_optimizer(config, device)
    sampler = other_sampler(config, folder and folder / "sampler")
    tokenizer = load_tokenizer(config.model, config.template_options)
    method = METHODS[method_of(config)]
    model = load_model(method, config, device)
    run = TrainState(config, task_of(config), tokenizer, model, device, sampler=sampler)
    if len(tokenizer) > (rows := run.model.get_input_embeddings().num_embeddings):
        raise LabError(
            f"The tokenizer of '{config.model}' has {len(tokenizer)} tokens, but the model only"
            f" {rows}. Give a model with the tokenizer that is its own."
        )
    require_causal(run.model, config.model)
    base = base_of(run.model)
    run.notes += drop_overlong_prompts(tokenizer, run.task, base.config)
    held_out, prompt = longest_prompts(tokenizer, run.task, config)
    require_positions(config, base.config, prompt)
    run.notes += compatibility_notes(run.model, config, device, held_out)
    attach_networks(method, run)
    run.flat_params = {
        rate: flat_params(group.values()) for rate, group in run.trainable_parameters().items()
    }
    run.optimizer = new_optimizer(config, device, run.trainable_parameters(), run.flat_params)
    if not state:
        set_steps_of_epochs(run)
    else:
        try:
            restore_checkpoint(run, state)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise LabError(
                f"The checkpoint does not fit '{config.model}'"
                f" ({' '.join(str(error).split())[:160]}). Put back the model that the run began"
                " with, or start a new run."
            ) from error
    return run


def train(run: TrainState, control: CommandPoller | None = None) -> Iterator[StepRecord | Event]:
    """Train until `run.config.steps` updates are done or `control` says stop.

    Yields a `StepRecord` after every update (and one for step 0, the untrained policy) and an
    `Event` for every start, live change, pause, stop and end. Commands are read between updates.
    Raises `LabError` with the step, the method and the last metrics when a loss or gradient is not
    finite; the weights are then those of the step before.
    """
    control = control or Control()
    method = METHODS[method_of(run.config)]
    yield Event(run.step, EventKind.RESUMED if run.step else EventKind.STARTED)
    if run.step == 0:
        with run.timer.phase("evaluating"):
            held_out, samples = _held_out(run, method)
        yield from _note_events(run)
        yield _record(run, held_out, samples)
    batches = method.batches(run)
    metrics: dict[str, float] = {}
    while run.step < run.config.steps:
        is_stopped = yield from _apply_commands(run, control)
        if is_stopped:
            return
        adapt_num_threads()
        with run.timer.phase("updating"):
            metrics = train_step(run, method, next(batches), metrics)
        yield from _note_events(run)
        samples = run.rollout.samples() if run.rollout else []
        if _is_evaluation_due(run):
            with run.timer.phase("evaluating"):
                held_out, held_out_samples = _held_out(run, method)
            metrics, samples = metrics | held_out, samples + held_out_samples
        yield _record(run, metrics, samples)
    yield Event(run.step, EventKind.FINISHED)


def _is_evaluation_due(run: TrainState) -> bool:
    """Whether the last update is evaluated: every `eval_every` updates, at the end, and in a fork also
    1, 2, 4, … updates after a change, so that held-out curves answer at once.

    Anchor: with eval_every = 10 and a change at update 25 these are 26, 27, 29, 30, 33 and 40.
    """
    every = run.config.eval_every
    since = 0 if run.changed_at is None else run.step - run.changed_at
    is_answer = 0 < since < every and since.bit_count() == 1
    return run.step == run.config.steps or is_answer or bool(every and run.step % every == 0)


def _record(
    run: TrainState, metrics: dict[str, float], samples: list[dict[str, Any]]
) -> StepRecord:
    """The record of the update that was made last."""
    return StepRecord(
        run.step,
        metrics,
        run.timer.training_seconds,
        run.tokens,
        samples,
        dict(run.timer.phases),
        run.generated,
    )


def _note_events(run: TrainState) -> Iterator[Event]:
    """An event for every waiting note."""
    while run.notes:
        yield Event(run.step, EventKind.NOTED, {"message": run.notes.pop(0)})


def _held_out(run: TrainState, method: MethodSpec) -> EvalResult:
    """Evaluate on held-out prompts. Only rank 0 evaluates, because only its records are written;
    with FSDP every rank takes part, because the weights are sharded.
    """
    if collectives.rank() == 0 or run.config.shard:
        metrics, samples = evaluate_method(method, run)
        return metrics | evaluate_agreement(run), samples
    return {}, []


def train_step(
    run: TrainState,
    method: MethodSpec,
    micro_batches: list[Any],
    last_metrics: dict[str, float] | None = None,
) -> dict[str, float]:
    """Make one optimizer update on a batch, given as micro-batches, and return its metrics.

    Raises `LabError`, with `last_metrics` in the message, when the loss or a gradient is not
    finite.
    """
    config, step = run.config, run.step + 1
    factor = learning_rate_factor(config, step)
    for group, knob in zip(run.optimizer.param_groups, run.flat_params):
        group["lr"] = factor * getattr(config, knob)
    means = MetricAccumulator()
    total, tokens = torch.zeros((), device=run.device), torch.zeros((), device=run.device)
    run.optimizer.zero_grad(set_to_none=True)
    with dropout_noise(config, step, run.device):
        for micro_batch in micro_batches:
            if isinstance(micro_batch, StandIn):
                loss, _ = method.loss(run, micro_batch.micro_batch)
                (0.0 * loss).backward()
                continue
            loss, metrics = method.loss(run, micro_batch)
            if loss.requires_grad:  # Without any advantage there is nothing to learn.
                backward(run, loss)
            total += loss.detach()
            tokens += micro_batch.tokens.completion_mask.sum()
            means.add(metrics)
    if run.rollout is not None:
        means.add(run.rollout.metrics())
    vectors = list(chain.from_iterable(run.flat_params.values()))
    for vector in vectors:
        vector.gather_gradients()
    _sum_over_ranks(run, [total, tokens], means)
    norms = {
        name: torch.nn.utils.clip_grad_norm_([v.flat for v in group], config.max_grad_norm)
        for name, group in zip(("grad_norm", "grad_norm/critic"), run.flat_params.values())
    }
    values = means.read(loss=total, tokens=tokens, **norms)
    if not all(math.isfinite(values[name]) for name in ("loss", *norms)):
        numbers = ", ".join(f"{name} {values[name]}" for name in ("loss", *norms))
        raise LabError(
            f"{method_of(config)} stopped at step {step}: {numbers}. The weights are those of step"
            f" {run.step}. Last metrics: {last_metrics or 'none'}. {_remedy_for_overflow(run)}"
        )
    if config.optimizer in MATRIX_OPTIMIZERS:
        for vector in vectors:
            vector.scatter_gradients()
    run.optimizer.step()
    run.step = step
    run.tokens += int(values.pop("tokens"))
    return values | {"learning_rate": factor * config.learning_rate}


def _remedy_for_overflow(run: TrainState) -> str:
    frozen = (p for p in run.model.parameters() if not p.requires_grad and p.is_floating_point())
    if all(bool(parameter.isfinite().all()) for parameter in frozen):
        return f"Start again with a learning_rate below {run.config.learning_rate:g}."
    return (
        f"The weights of {run.config.model} hold values that are not finite, and training does not"
        " change them. Give another --model."
    )


def _sum_over_ranks(run: TrainState, scalars: list[torch.Tensor], means: MetricAccumulator) -> None:
    """Sum gradients, `scalars` and metrics over the shares of the batch that other ranks hold."""
    if collectives.world_size() == 1:
        return
    means.align_keys([*METRICS, *logged_terms(run.config)], run.device)
    vectors = [vector.flat for vector in chain.from_iterable(run.flat_params.values())]
    gradients = [vector.grad for vector in vectors if vector.grad is not None]
    collectives.all_reduce_sum_([*gradients, *scalars, *means.tensors()])


def _apply_commands(
    run: TrainState, control: CommandPoller
) -> Generator[StepRecord | Event, None, bool]:
    """Apply the waiting commands and yield the event that answers each of them; wait while paused.

    Returns whether to stop.
    """
    is_paused = False
    while True:
        for command in collectives.broadcast_object(control.poll):
            if command.action == "stop":
                yield Event(run.step, EventKind.STOPPED, id=command.id)
                return True
            if command.action in ("pause", "continue"):
                is_paused = command.action == "pause"
                kind = EventKind.PAUSED if is_paused else EventKind.CONTINUED
                yield Event(run.step, kind, id=command.id)
            else:
                yield _apply(run, command)
        if not is_paused:
            return False
        time.sleep(COMMAND_POLL_SECONDS)


def _apply(run: TrainState, command: Command) -> Event:
    """Change a live setting; return the event that says so, or why not."""
    try:
        if command.action != "set":
            raise LabError(
                f"Unknown action '{command.action}'. Accepted: set, pause, continue, stop."
            )
        before = getattr(run.config, command.knob, None)
        run.config = change_setting(run.config, command.knob, command.value)
        if run.changed_at is not None:
            run.changed_at = run.step
    except LabError as error:
        return Event(run.step, EventKind.REJECTED, {"message": str(error)}, command.id)
    return Event(
        run.step,
        EventKind.CHANGED,
        {"knob": command.knob, "from": before, "to": getattr(run.config, command.knob)},
        command.id,
    )
