"""The one loop: a generator that yields one `StepRecord` per update, and an `Event` for everything
that happens between.
"""

import math
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from lab.config.methods import RunConfig, change, method_of, to_dict
from lab.distributed import collectives
from lab.distributed.cpu_threads import adapt_num_threads
from lab.distributed.fsdp import require_shardable
from lab.errors import LabError
from lab.models import adapter_files
from lab.models.context_length import require_positions
from lab.models.device import resolve_device
from lab.models.tokenizer import load_tokenizer
from lab.runs.control import Command, Control
from lab.runs.metrics import METRICS, Event, StepRecord
from lab.tasks.registry import task_of
from lab.training.compatibility import keep_fitting, longest, notes, require_causal
from lab.training.flat_params import vectors
from lab.training.methods.dpo_ipo import DPO, IPO
from lab.training.methods.grpo import GRPO
from lab.training.methods.kto import KTO
from lab.training.methods.online_dpo import ONLINE_DPO
from lab.training.methods.ppo import PPO
from lab.training.methods.reward_model import REWARD_MODEL
from lab.training.methods.sft import SFT
from lab.training.rollout import Rollout
from lab.training.state import EvalResult, Method, TrainState

METHODS: dict[str, Method] = {
    "sft": SFT,
    "reward_model": REWARD_MODEL,
    "dpo": DPO,
    "ipo": IPO,
    "kto": KTO,
    "grpo": GRPO,
    "ppo": PPO,
    "online_dpo": ONLINE_DPO,
}
POLL_SECONDS = 0.05


def prepare(config: RunConfig, state: dict[str, Any] | None = None) -> TrainState:
    """Load model, tokenizer and task of `config`; with `state` from `checkpoint`, continue there.

    A checkpoint holds the config with its live changes under "config"; pass
    `from_dict(state["config"])` to keep them.
    """
    require_shardable(config)
    device = resolve_device(config.device)
    tokenizer = load_tokenizer(config.model, config.template_options)
    method = METHODS[method_of(config)]
    run = TrainState(config, task_of(config), tokenizer, method.load(config, device), device)
    if len(tokenizer) > (rows := run.model.get_input_embeddings().num_embeddings):
        raise LabError(
            f"The tokenizer of '{config.model}' has {len(tokenizer)} tokens, but the model only"
            f" {rows}. Give a model with the tokenizer that is its own."
        )
    require_causal(run.model, config.model)
    run.notes += keep_fitting(tokenizer, run.task, run.model.get_base_model().config)
    held_out, prompt = longest(tokenizer, run.task, config)
    require_positions(config, run.model.get_base_model().config, prompt)
    run.notes += notes(run.model, config, device, held_out)
    method.attach(run)
    run.vectors = {rate: vectors(group.values()) for rate, group in run.trained().items()}
    run.optimizer = torch.optim.AdamW(
        [{"params": [v.whole for v in group]} for group in run.vectors.values()],
        lr=config.learning_rate,
        weight_decay=0.0,
        fused=device.type == "cuda",
    )
    if state:
        try:
            _restore(run, state)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise LabError(
                f"The checkpoint does not fit '{config.model}'"
                f" ({' '.join(str(error).split())[:160]}). Put back the model that the run began"
                " with, or start a new run."
            ) from error
    return run


def _restore(run: TrainState, state: dict[str, Any]) -> None:
    with torch.no_grad():
        for rate, group in run.trained().items():
            for name, weight in group.items():
                weight.copy_(state["trained"][rate][name])
    run.optimizer.load_state_dict(state["optimizer"])
    run.step, run.tokens, run.generated, run.phases = (
        state["step"],
        state["tokens"],
        state["generated"],
        dict(state["phases"]),
    )
    run.kl_factor = state["kl_factor"]
    run.rollout = state["rollout"] and Rollout.of(state["rollout"], run.device)


def checkpoint(run: TrainState) -> dict[str, Any]:
    """Everything that `prepare` needs to continue the same trajectory: tensors, numbers and strings
    only.

    Randomness needs no state: every draw is seeded by the config's seed and the step.
    """
    return {
        "config": to_dict(run.config),
        "step": run.step,
        "tokens": run.tokens,
        "generated": run.generated,
        "phases": dict(run.phases),
        "kl_factor": run.kl_factor,
        "trained": {
            rate: {name: weight.detach() for name, weight in group.items()}
            for rate, group in run.trained().items()
        },
        "optimizer": run.optimizer.state_dict(),
        "rollout": run.rollout and run.rollout.state(),
    }


def save_adapter(run: TrainState, folder: Path) -> None:
    """Write the policy's adapter in PEFT's format, without a critic;
    `PeftModel.from_pretrained(base, folder)` loads it.
    """
    adapter_files.write_adapter(run.model, run.tokenizer, folder)


def train(run: TrainState, control: Control | None = None) -> Iterator[StepRecord | Event]:
    """Train until `run.config.steps` updates are done or `control` says stop.

    Yields a `StepRecord` after every update (and one for step 0, the untrained policy) and an
    `Event` for every start, live change, pause, stop and end. Commands are read between updates. A
    loss or gradient that is not finite raises `LabError` with the step, the method and the last
    metrics, before it can touch the weights.
    """
    control = control or Control()
    method = METHODS[method_of(run.config)]
    yield Event(run.step, "resumed" if run.step else "started")
    if run.step == 0:
        with run.phase("evaluating"):
            metrics, samples = _held_out(run, method)
        yield from _noted(run)
        yield StepRecord(
            0, metrics, run.seconds, run.tokens, samples, dict(run.phases), run.generated
        )
    batches = method.batches(run)
    metrics = {}
    while run.step < run.config.steps:
        stop = yield from _obey(run, control)
        if stop:
            return
        adapt_num_threads()
        with run.phase("updating"):
            metrics = update(run, method, next(batches), metrics)
        yield from _noted(run)
        samples = run.rollout.samples() if run.rollout else []
        every = run.config.eval_every
        if run.step == run.config.steps or (every and run.step % every == 0):
            with run.phase("evaluating"):
                held_out, held_out_samples = _held_out(run, method)
            metrics, samples = metrics | held_out, samples + held_out_samples
        yield StepRecord(
            run.step, metrics, run.seconds, run.tokens, samples, dict(run.phases), run.generated
        )
    yield Event(run.step, "finished")


def _noted(run: TrainState) -> Iterator[Event]:
    """An event for every remark that waits."""
    while run.notes:
        yield Event(run.step, "noted", {"message": run.notes.pop(0)})


def _held_out(run: TrainState, method: Method) -> EvalResult:
    """Process 0 evaluates; the others, whose records nobody reads, wait for it at the next update,
    or do the same where it needs their weights.
    """
    return method.evaluate(run) if collectives.rank() == 0 or run.config.shard == "on" else ({}, [])


def update(
    run: TrainState, method: Method, pieces: list[Any], last: dict[str, float] | None = None
) -> dict[str, float]:
    """One optimizer update on a batch given as pieces; returns its metrics. `last` goes into the
    message of a failure.
    """
    config, step = run.config, run.step + 1
    warm = min(1.0, step / config.warmup_steps if config.warmup_steps else 1.0)
    for group, knob in zip(run.optimizer.param_groups, run.vectors):
        group["lr"] = warm * getattr(config, knob)
    means = Means()
    total, tokens = torch.zeros((), device=run.device), torch.zeros((), device=run.device)
    run.optimizer.zero_grad(set_to_none=True)
    for piece in pieces:
        loss, metrics = method.loss(run, piece)
        if loss.requires_grad:  # Where no row has an advantage nothing is to be learnt.
            loss.backward()
        total += loss.detach()
        tokens += piece.tokens.completion_mask.sum()
        means.add(metrics)
    if run.rollout is not None:
        means.add(run.rollout.metrics())
    for vector in chain.from_iterable(run.vectors.values()):
        vector.gather()
    _add_up(run, [total, tokens], means)
    norms = {
        name: torch.nn.utils.clip_grad_norm_(group["params"], config.max_grad_norm)
        for name, group in zip(("grad_norm", "grad_norm/critic"), run.optimizer.param_groups)
    }
    values = means.read(loss=total, tokens=tokens, **norms)
    if not all(math.isfinite(values[name]) for name in ("loss", *norms)):
        found = ", ".join(f"{name} {values[name]}" for name in ("loss", *norms))
        raise LabError(
            f"{method_of(config)} stopped at step {step}: {found}. The weights are those of step"
            f" {run.step}. Last metrics: {last or 'none'}. Start again with a learning_rate below"
            f" {config.learning_rate:g}."
        )
    run.optimizer.step()
    run.step = step
    run.tokens += int(values.pop("tokens"))
    return values | {"learning_rate": warm * config.learning_rate}


def _add_up(run: TrainState, scalars: list[torch.Tensor], means: "Means") -> None:
    """Gradients, `scalars` and metrics of the whole batch, where other processes hold parts of it."""
    if collectives.world_size() == 1:
        return
    means.name(METRICS, run.device)
    collectives.all_reduce_sum_(
        [
            *(vector.whole.grad for vector in chain.from_iterable(run.vectors.values())),
            *scalars,
            *means.tensors(),
        ]
    )


class Means:
    """Averages of metrics over the pieces of a batch, leaving NaN entries out; one device
    synchronisation at the end.
    """

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, torch.Tensor] = {}

    def add(self, metrics: dict[str, torch.Tensor]) -> None:
        """Add the entries of detached tensors of any shape."""
        for name, value in metrics.items():
            known = ~value.isnan()
            self._sums[name] = self._sums.get(name, 0) + value.float().nansum()
            self._counts[name] = self._counts.get(name, 0) + known.sum()

    def name(self, names: Iterable[str], device: torch.device) -> None:
        """Know exactly the metrics of these names, in this order, those without an entry too."""
        self._sums = {name: self._sums.get(name, torch.zeros((), device=device)) for name in names}
        self._counts = {
            name: self._counts.get(name, torch.zeros((), device=device)).float() for name in names
        }

    def tensors(self) -> list[torch.Tensor]:
        """Sums and counts, to be changed in place."""
        return [*self._sums.values(), *self._counts.values()]

    def read(self, **scalars: torch.Tensor) -> dict[str, float]:
        """`scalars` as they are, then the mean of every metric that had an entry."""
        known = [n for n in self._sums if n not in scalars]
        names = [*scalars, *known]
        values = [v.float() for v in scalars.values()] + [
            self._sums[n] / self._counts[n] for n in known
        ]
        read = dict(zip(names, torch.stack(values).tolist()))
        return {n: v for n, v in read.items() if n in scalars or not math.isnan(v)}


def _obey(run: TrainState, control: Control) -> Iterator[Event]:
    """Apply the waiting commands, each echoed as an event; wait while paused. Returns whether to
    stop.
    """
    paused = False
    while True:
        for command in collectives.broadcast_object(control.poll):
            if command.action == "stop":
                yield Event(run.step, "stopped", id=command.id)
                return True
            if command.action in ("pause", "continue"):
                paused = command.action == "pause"
                yield Event(run.step, "paused" if paused else "continued", id=command.id)
            else:
                yield _apply(run, command)
        if not paused:
            return False
        time.sleep(POLL_SECONDS)


def _apply(run: TrainState, command: Command) -> Event:
    try:
        if command.action != "set":
            raise LabError(
                f"Unknown action '{command.action}'. Accepted: set, pause, continue, stop."
            )
        before = getattr(run.config, command.knob, None)
        run.config = change(run.config, command.knob, command.value)
    except LabError as error:
        return Event(run.step, "rejected", {"message": str(error)}, command.id)
    return Event(
        run.step,
        "changed",
        {"knob": command.knob, "from": before, "to": getattr(run.config, command.knob)},
        command.id,
    )
