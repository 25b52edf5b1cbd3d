"""What the policy does on held-out prompts: gold accuracy, scratchpads, length, exact KL, pass@k."""

from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lab.analysis.statistics import pass_at_k, wilson_interval
from lab.data.batching import TokenBatch
from lab.engine.sampler import Completions, sample
from lab.engine.token_logprobs import token_statistics
from lab.tasks.prompting import render_prompts
from lab.tasks.registry import Task, extra_metrics

EVAL_BATCH_ROWS = 256  # Sequences of one forward pass outside of training.


@dataclass(frozen=True)
class Evaluation:
    """Measurements on `prompts` held-out prompts, `samples` completions each.

    `accuracy_ci` is the 95 % Wilson interval of the accuracy; with several samples per prompt it
    counts prompts, not completions, as independent. `kl` is KL(π‖π_ref) in nats per completion,
    exact over the vocabulary at every token of the policy's own samples. `pass_at_k` maps k to the
    unbiased estimate of arXiv 2107.03374, Eq. 1. Where nothing says what is right, the accuracy is
    None and the rest of it empty. `facts` are what this task alone measures.
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
        """The part that enters a run's record."""
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
    """KL(π‖π_ref) of each completion (N,) in nats: the vocabulary-exact KL of every token, summed
    over the completion.
    """
    out = []
    for ids, mask in zip(
        completions.ids.split(EVAL_BATCH_ROWS), completions.completion_mask.split(EVAL_BATCH_ROWS)
    ):
        out.append(token_statistics(model, TokenBatch(ids, mask), reference=model).kl.sum(1))
    return torch.cat(out)


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
    """Sample `samples` completions of the first `prompts` held-out prompts (all, where there are
    fewer) and score them with the task's gold answers.

    The noise depends on `seed` alone, so two policies are compared on the same draws. `step`, the
    updates made so far, is for a reward of the user's own.
    """
    problems = task.held_out(prompts)
    drawn = sample(
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
    owners = [p for p in problems for _ in range(samples)]
    scores = [task.score(p, text) for p, text in zip(owners, drawn.texts)]
    right = [] if any(s.answer is None for s in scores) else [int(s.answer) for s in scores]
    correct = [sum(right[i : i + samples]) for i in range(0, len(right), samples)]
    accuracy = sum(right) / len(right) if right else None
    ks = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= samples and right]
    lengths = drawn.lengths.tolist()
    return Evaluation(
        prompts=len(problems),
        samples=samples,
        seed=seed,
        accuracy=accuracy,
        accuracy_ci=wilson_interval(accuracy, len(problems)) if right else (),
        format=sum(s.format for s in scores) / len(scores),
        facts=extra_metrics(task, owners, drawn.texts, drawn.completion_ids, step),
        mean_length=sum(lengths) / len(lengths),
        truncated=drawn.truncated.float().mean().item(),
        kl=completion_kl(model, drawn, device).mean().item(),
        pass_at_k={k: sum(pass_at_k(samples, c, k) for c in correct) / len(correct) for k in ks},
        completions=[
            {
                "prompt": p.prompt,
                "completion": text,
                "gold": s.answer,
                "answer": p.answer,
                "held_out": True,
                "length": n,
            }
            for p, text, s, n in zip(owners, drawn.texts, scores, lengths)
        ],
    )
