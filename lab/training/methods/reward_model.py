"""The Bradley-Terry reward model, stage 1 of RLHF."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.config.hooks import Hook
from lab.config.methods import MethodSpec
from lab.config.optimizer_settings import LEARNING_RATE_HELP
from lab.config.run_config import OfflineConfig, RunConfig, config_as
from lab.config.schema import setting
from lab.errors import LabError
from lab.training.without_gradients import without_gradients

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from lab.data.batching import TokenBatch
    from lab.data.token_rows import EncodedExample, TextPair
    from lab.training.method import EvalResult, MetricTensors
    from lab.training.state import TrainState


LOSS = Hook("loss", ("chosen_rewards", "rejected_rewards"), "(B,) losses, one for each pair")


@dataclass(frozen=True)
class RewardModelConfig(OfflineConfig):
    """A Bradley-Terry reward model, stage 1 of RLHF."""

    learning_rate: float = setting(
        1e-3, LEARNING_RATE_HELP, low=1e-8, high=1.0, mutable=True, log=True
    )


@dataclass
class Pairs:
    """P pairs: the P chosen rows, then the P rejected; `total` counts the pairs of the whole batch."""

    tokens: TokenBatch
    total: int


def batches(run: TrainState) -> Iterator[list[Pairs]]:
    """Yield shuffled epochs over the pairs."""
    from lab.data.batching import collate
    from lab.distributed import collectives
    from lab.training.batch_rows import batch_rows
    from lab.training.methods.offline import encode_pairs, load_preferences
    from lab.training.micro_batches import split_evenly

    chosen, rejected = encode_pairs(run, load_preferences(run))
    rows_of = batch_rows(run, chosen, rejected)
    while True:
        config = config_as(run.config, RewardModelConfig)
        rows = rows_of.of_update(run.step + 1)
        yield [
            Pairs(
                collate(chosen.at(part) + rejected.at(part), run.tokenizer.pad_token_id).to(
                    run.device
                ),
                len(rows),
            )
            for part in split_evenly(
                list(collectives.shard_for_rank(rows, "pairs")), config.micro_batches
            )
        ]


def scores(run: TrainState, tokens: TokenBatch) -> torch.Tensor:
    """Return rewards (B,), read at each row's last completion token."""
    from lab.engine.token_logprobs import score

    return score(run.model, tokens)


def loss(run: TrainState, pairs: Pairs) -> tuple[torch.Tensor, MetricTensors]:
    """Return `lab.algorithms.losses.reward_model_loss` of one micro-batch, or the run's own loss."""
    from lab.algorithms.losses import reward_model_loss
    from lab.algorithms.reductions import batch_mean
    from lab.training.own_functions import own_tensor

    chosen, rejected = scores(run, pairs.tokens).chunk(2)
    losses, metrics = reward_model_loss(chosen, rejected)
    if LOSS.name in run.own:
        losses = own_tensor(run, LOSS, (chosen, rejected), losses)
    return batch_mean(losses, pairs.total), metrics


def held_out_pairs(run: TrainState) -> tuple[Sequence[EncodedExample], Sequence[EncodedExample]]:
    """Return right and wrong completions of the same held-out prompts, sampled from the base with
    the run's seed; of the user's own data the pairs behind the first `pairs`.
    """
    from lab.data.batching import encode_examples
    from lab.data.parsing import load_pairs
    from lab.engine.sampler import sample
    from lab.models.loading import load_policy
    from lab.tasks.prompting import as_messages, render_prompts
    from lab.training.methods.offline import encode_pairs, fitting

    config = config_as(run.config, RewardModelConfig)
    if config.data:
        rest = (
            load_pairs(config.data)[config.pairs :][: config.eval_prompts] if config.pairs else []
        )
        return encode_pairs(run, fitting(run, rest)) if rest else ([], [])
    base = load_policy(run.config, run.device)
    problems = run.task.held_out(run.config.eval_prompts)
    drawn = sample(
        base,
        run.tokenizer,
        render_prompts(run.tokenizer, problems),
        4,
        max_tokens=run.config.max_completion_tokens,
        temperature=1.0,
        seed=run.config.seed,
        step=0,
        device=run.device,
        stream="reward evaluation",
    )
    right: list[TextPair] = []
    wrong: list[TextPair] = []
    for i, problem in enumerate(problems):
        texts = drawn.texts[4 * i : 4 * i + 4]
        good = [t for t in texts if run.task.score(problem, t).answer == 1]
        bad = [t for t in texts if run.task.score(problem, t).answer == 0]
        if good and bad:
            right.append(as_messages(run.tokenizer, problem, good[0]))
            wrong.append(as_messages(run.tokenizer, problem, bad[0]))
    if not right:
        raise LabError(
            f"No held-out prompt of {run.config.eval_prompts} has both a right and a wrong"
            " completion. Raise eval_prompts."
        )
    longest = int(drawn.completion_mask.shape[1]) + 1
    return encode_examples(run.tokenizer, right, longest, "held-out prompt"), encode_examples(
        run.tokenizer, wrong, longest, "held-out prompt"
    )


@without_gradients
def evaluate_ranking(run: TrainState) -> EvalResult:
    """Return how well the scores rank right above wrong completions of held-out prompts; nothing
    where the run trains on all of the user's own data.
    """
    import torch

    from lab.data.batching import collate
    from lab.tasks.user_data import DataTask
    from lab.training.evaluation import EVAL_BATCH_ROWS
    from lab.training.methods.offline import held_out_metrics

    if isinstance(run.task, DataTask):
        return held_out_metrics(run, batches, loss), []
    if "held_out_pairs" not in run.cache:
        run.cache["held_out_pairs"] = held_out_pairs(run)
    if not run.cache["held_out_pairs"][0]:
        return {}, []
    right, wrong = (
        torch.cat(
            [
                scores(
                    run,
                    collate(part[i : i + EVAL_BATCH_ROWS], run.tokenizer.pad_token_id).to(
                        run.device
                    ),
                )
                for i in range(0, len(part), EVAL_BATCH_ROWS)
            ]
        )
        for part in run.cache["held_out_pairs"]
    )
    return {
        "gold/reward_accuracy": (right > wrong).float().mean().item(),
        "gold/reward_margin": (right - wrong).mean().item(),
    }, []


def load(config: RunConfig, device: torch.device) -> PeftModel:
    """Return the base with LoRA and a head that gives one number."""
    from lab.models.loading import load_reward_model

    return load_reward_model(config, device)


def formula(config: Mapping[str, Any]) -> list[str]:
    """The loss of one pair."""
    return [r"\mathcal{L}_{\mathrm{RM}}=-\log\sigma\big(r(x,y_w)-r(x,y_l)\big)"]


SPEC = MethodSpec(
    name="reward_model",
    title="Reward model",
    summary=(
        "A reward model learns a score that is higher for the chosen than for the rejected"
        " completion. It is the first stage of RLHF."
    ),
    colour="#D55E00",
    config=RewardModelConfig,
    learns_from="pairs",
    batches=batches,
    loss=loss,
    formula=formula,
    models=("reward model",),
    load=load,
    evaluate=evaluate_ranking,
    hooks=(LOSS,),
)
