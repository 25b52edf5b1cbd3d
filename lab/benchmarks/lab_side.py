"""The lab's side of the benchmark: updates of a method, or sampling alone."""

import torch

from lab.benchmarks.device_limits import synchronized_seconds
from lab.benchmarks.side_process import Steps
from lab.benchmarks.workload import Prompts, Work, lab_config
from lab.config.methods import METHODS
from lab.data.batching import last_token
from lab.data.encoding import prompt_ids
from lab.data.examples import Text
from lab.engine.sampler import sample
from lab.models.loading import fitting_threads, load_policy
from lab.training.loop import prepare, train_step


def lab_steps(work: Work, where: torch.device, checkpointing: bool = False) -> Steps:
    """Do `work` in the lab, one step for each value. A value is the seconds of the step, and the
    lengths in tokens of the sequences that it trained on or, for sampling alone, that it sampled.
    """
    if not work.method:
        return _decoding_steps(work, where)
    return _training_steps(work, where, checkpointing)


def _training_steps(work: Work, where: torch.device, checkpointing: bool) -> Steps:
    run = prepare(lab_config(work, where, checkpointing))
    if work.prompts:
        run.task = Prompts(work.prompts)
    method = METHODS[work.method]
    batches = method.batches(run)
    while True:
        with fitting_threads(run.model):
            began = synchronized_seconds(where)
            pieces = next(batches)
            train_step(run, method, pieces)
            seconds = synchronized_seconds(where) - began
        if work.prompts:
            assert run.rollout is not None
            yield seconds, run.rollout.completion_mask.sum(1).tolist()
        else:
            yield seconds, [n + 1 for piece in pieces for n in last_token(piece.tokens).tolist()]


def _decoding_steps(work: Work, where: torch.device) -> Steps:
    config, step = lab_config(work, where), 0
    texts: list[Text] = [*work.prompts]
    prompts = prompt_ids(work.tokenizer, texts)
    model = load_policy(config, where)
    while True:
        step += 1
        with fitting_threads(model):
            began = synchronized_seconds(where)
            completions = sample(
                model,
                work.tokenizer,
                prompts,
                work.group,
                max_tokens=work.longest,
                temperature=1.0,
                seed=0,
                step=step,
                device=where,
            )
            seconds = synchronized_seconds(where) - began
        yield seconds, completions.lengths.tolist()
