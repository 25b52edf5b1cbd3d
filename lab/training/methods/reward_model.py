"""The Bradley-Terry reward model, stage 1 of RLHF."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from lab.algorithms.losses import reward_model_loss
from lab.algorithms.reductions import batch_mean
from lab.data.batching import TokenBatch, batch_indices, collate, encode_examples
from lab.data.parsing import load_pairs
from lab.data.token_rows import EncodedExample
from lab.distributed import collectives
from lab.engine.sampler import sample
from lab.engine.token_logprobs import score
from lab.errors import LabError
from lab.models.loading import load_policy, load_reward_model
from lab.tasks.prompting import as_messages, render_prompts
from lab.tasks.registry import DataTask
from lab.training.evaluation import EVAL_BATCH_ROWS
from lab.training.method import EvalResult, Method, MetricTensors
from lab.training.methods.offline import encode_pairs, fitting, held_out_metrics, load_preferences
from lab.training.micro_batches import split_evenly
from lab.training.state import TrainState


@dataclass
class Pairs:
    """P pairs: the P chosen rows, then the P rejected; `total` counts the pairs of the whole batch."""

    tokens: TokenBatch
    total: int


def batches(run: TrainState) -> Iterator[list[Pairs]]:
    """Shuffled epochs over the pairs."""
    chosen, rejected = encode_pairs(run, load_preferences(run))
    while True:
        rows = batch_indices(len(chosen), run.config.batch_size, run.config.seed, run.step + 1)
        yield [
            Pairs(
                collate(chosen.at(part) + rejected.at(part), run.tokenizer.pad_token_id).to(
                    run.device
                ),
                len(rows),
            )
            for part in split_evenly(
                collectives.shard_for_rank(rows, "pairs"), run.config.micro_batches
            )
        ]


def scores(run: TrainState, tokens: TokenBatch) -> torch.Tensor:
    """Rewards (B,) read at each row's last completion token."""
    return score(run.model, tokens)


def loss(run: TrainState, pairs: Pairs) -> tuple[torch.Tensor, MetricTensors]:
    """`lab.algorithms.losses.reward_model_loss` on one piece."""
    losses, metrics = reward_model_loss(*scores(run, pairs.tokens).chunk(2))
    return batch_mean(losses, pairs.total), metrics


def held_out_pairs(run: TrainState) -> tuple[list[EncodedExample], list[EncodedExample]]:
    """Right and wrong completions of the same held-out prompts, sampled from the base with the
    run's seed; of own data those behind the first `pairs`.
    """
    if run.config.data:
        rest = (
            load_pairs(run.config.data)[run.config.pairs :][: run.config.eval_prompts]
            if run.config.pairs
            else []
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
    right, wrong = [], []
    for i, problem in enumerate(problems):
        texts = drawn.texts[4 * i : 4 * i + 4]
        good = [t for t in texts if run.task.score(problem, t).answer == 1]
        bad = [t for t in texts if run.task.score(problem, t).answer == 0]
        if good and bad:
            right.append(as_messages(run.tokenizer, problem, good[0]))
            wrong.append(as_messages(run.tokenizer, problem, bad[0]))
    if not right:
        raise LabError(
            f"No held-out prompt of {run.config.eval_prompts} has both a right and a wrong completion. Raise eval_prompts."
        )
    longest = int(drawn.completion_mask.shape[1]) + 1
    return encode_examples(run.tokenizer, right, longest, "held-out prompt"), encode_examples(
        run.tokenizer, wrong, longest, "held-out prompt"
    )


@torch.no_grad()
def evaluate(run: TrainState) -> EvalResult:
    """How well the scores rank right above wrong completions of held-out prompts; nothing where all
    of one's own data is trained on.
    """
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


REWARD_MODEL = Method(batches, loss, load_reward_model, evaluate)
