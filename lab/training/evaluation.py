"""Evaluates a policy on held-out prompts: gold accuracy, length, exact KL, pass@k."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lab.analysis.statistics import pass_at_k, wilson_interval
from lab.data.batching import TokenBatch
from lab.engine.sampler import Completions, sample
from lab.engine.token_logprobs import token_statistics
from lab.tasks.base import Problem, Score, Task
from lab.tasks.prompting import render_prompts
from lab.tasks.registry import extra_metrics

PASS_AT = (1, 2, 4, 8, 16, 32, 64)  # Values of k, as far as there are samples.
EVAL_BATCH_ROWS = 256  # Sequences in one forward pass outside of training.


@dataclass(frozen=True)
class Evaluation:
    """Measurements on `prompts` held-out prompts, `samples` completions each.

    `accuracy_ci` is the 95 % Wilson interval of the accuracy; with several samples per prompt it
    counts prompts, not completions, as independent. `kl` is KL(π‖π_ref) in nats per completion,
    exact over the vocabulary at every token of the policy's own samples. `pass_at_k` maps k to the
    unbiased estimate of arXiv 2107.03374, Eq. 1. For a task without gold answers `accuracy` is None,
    and `accuracy_ci` and `pass_at_k` are empty. `facts` are the measures of this task alone.
    """

    prompts: int
    samples: int
    seed: int
    accuracy: float | None
    accuracy_ci: tuple[float, float] | tuple[()]
    format: float
    facts: dict[str, float]
    mean_length: float
    truncated: float
    kl: float
    pass_at_k: dict[int, float]
    completions: list[dict[str, Any]]

    def metrics(self) -> dict[str, float]:
        """Return the metrics that enter a run's record."""
        right = {} if self.accuracy is None else {"gold/accuracy": self.accuracy}
        return right | {
            "gold/format": self.format,
            **{f"gold/{name}": value for name, value in self.facts.items()},
            "gold/mean_length": self.mean_length,
            "gold/kl": self.kl,
        }

    def as_record(self, *, complete: bool = False) -> dict[str, Any]:
        """Returns the measurements as one flat object for JSON; accuracy is left out where nothing
        says what is right.

        A `complete` record also has the interval of the accuracy, the share of truncated
        completions, pass@k, and how many prompts and samples with which seed were evaluated.
        """
        known = self.accuracy is not None
        record: dict[str, Any] = {"gold/accuracy": self.accuracy} if known else {}
        if known and complete:
            record["gold/accuracy_ci"] = list(self.accuracy_ci)
        record |= {
            "gold/format": self.format,
            **self.facts,
            "completions/mean_length": self.mean_length,
        }
        if complete:
            record["completions/clipped_ratio"] = self.truncated
        record["kl"] = self.kl
        if known and complete:
            record["pass_at_k"] = {str(k): value for k, value in self.pass_at_k.items()}
        if complete:
            record |= {"prompts": self.prompts, "samples": self.samples, "seed": self.seed}
        return record


@torch.no_grad()
def completion_kl(model: PeftModel, completions: Completions, device: torch.device) -> torch.Tensor:
    """Return KL(π‖π_ref) of each completion (N,) in nats: the KL of every token, exact over the
    vocabulary, summed over the completion.
    """
    sums = []
    for ids, mask in zip(
        completions.ids.split(EVAL_BATCH_ROWS), completions.completion_mask.split(EVAL_BATCH_ROWS)
    ):
        kl = token_statistics(model, TokenBatch(ids, mask), reference=model).kl
        assert kl is not None  # With `against` there is a KL.
        sums.append(kl.sum(1))
    return torch.cat(sums)


def evaluate(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    *,
    prompts: int,
    max_tokens: int,
    seed: int,
    device: torch.device,
    samples: int = 1,
    temperature: float = 1.0,
    step: int = 0,
) -> Evaluation:
    """Sample `samples` completions of each of the first `prompts` held-out prompts (all, where there
    are fewer) and score them with the task's gold answers.

    The noise depends on `seed` alone, so two policies are compared on the same draws. `step`, the
    number of updates so far, is passed to a reward of the user's own.
    """
    problems = task.held_out(prompts)
    completions = sample(
        model,
        tokenizer,
        render_prompts(tokenizer, problems),
        samples,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        step=0,
        device=device,
        stream="evaluation",
    )
    owners = [problem for problem in problems for _ in range(samples)]
    scores = [task.score(problem, text) for problem, text in zip(owners, completions.texts)]
    correct = _correct_per_prompt(scores, samples)
    accuracy = sum(correct) / len(scores) if correct else None
    ks = [k for k in PASS_AT if k <= samples and correct]
    lengths = completions.lengths.tolist()
    return Evaluation(
        prompts=len(problems),
        samples=samples,
        seed=seed,
        accuracy=accuracy,
        accuracy_ci=() if accuracy is None else wilson_interval(accuracy, len(problems)),
        format=sum(score.format for score in scores) / len(scores),
        facts=extra_metrics(task, owners, completions.texts, completions.completion_ids, step),
        mean_length=sum(lengths) / len(lengths),
        truncated=completions.truncated.float().mean().item(),
        kl=completion_kl(model, completions, device).mean().item(),
        pass_at_k={k: sum(pass_at_k(samples, c, k) for c in correct) / len(correct) for k in ks},
        completions=_sample_rows(owners, completions.texts, scores, lengths),
    )


def _sample_rows(
    owners: Sequence[Problem], texts: Sequence[str], scores: Sequence[Score], lengths: Sequence[int]
) -> list[dict[str, Any]]:
    """The completions as rows of samples.jsonl, but without step and index."""
    return [
        {
            "prompt": problem.prompt,
            "completion": text,
            "gold": score.answer,
            "answer": problem.answer,
            "held_out": True,
            "length": length,
        }
        for problem, text, score, length in zip(owners, texts, scores, lengths)
    ]


def _correct_per_prompt(scores: Sequence[Score], samples: int) -> list[int]:
    """How many of the `samples` completions of each prompt are right; empty without gold answers."""
    answers = [score.answer for score in scores if score.answer is not None]
    if len(answers) < len(scores):
        return []
    return [sum(map(int, answers[i : i + samples])) for i in range(0, len(answers), samples)]
