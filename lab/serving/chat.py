"""A chat with a trained policy and with its base side by side."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lab.config.input_checks import require_text
from lab.data.chat_template import prompt_text
from lab.data.encoding import TokenIds, prompt_ids, unknown_text
from lab.data.examples import Message, Text
from lab.engine.sampler import sample
from lab.errors import LabError
from lab.models.adapters import adapter_disabled
from lab.models.loading import fitting_threads
from lab.models.tokenizer import load_tokenizer
from lab.runs.folder import RunFolder
from lab.serving.load import load_run

RESET_COMMAND = "/reset"
"""The line that makes both forget the conversation."""


def chat(
    folder: RunFolder,
    lines: Iterable[str],
    *,
    temperature: float = 0.7,
    max_tokens: int = 256,
    seed: int = 0,
    device: str = "auto",
) -> Iterator[dict[str, str]]:
    """Answers each line twice: {"reference": …, "policy": …}, by a run's base and by its policy, each
    of which continues from its own answers so far.

    With a chat template a line is what the user says; without one, each line is a text to be
    continued and nothing is remembered. `/reset` forgets the conversation. The noise depends on
    seed, turn and text alone, so both draw the same tokens until their distributions part. A line
    that cannot be read is answered with {"error": …}.
    """
    config, model = load_run(folder, device)
    tokenizer = load_tokenizer(config.model, config.template_options)
    histories: dict[str, list[Message]] = {"reference": [], "policy": []}
    for turn, line in enumerate(line.strip() for line in lines):
        if line == RESET_COMMAND:
            histories = {name: [] for name in histories}
        elif line:
            request = {"role": "user", "content": line}
            answers = {}
            try:
                require_text("the line", line)
                for name, history in histories.items():
                    ids = _prompt_ids(tokenizer, [*history, request])
                    with _weights_of(name, model):
                        completions = sample(
                            model,
                            tokenizer,
                            [ids],
                            1,
                            max_tokens=max_tokens,
                            temperature=temperature,
                            seed=seed,
                            step=turn,
                            device=model.device,
                            stream="chat",
                        )
                    answers[name] = completions.texts[0]
            except LabError as error:
                yield {"error": str(error)}
                continue
            for name, answer in answers.items():
                histories[name] += [request, {"role": "assistant", "content": answer}]
            yield answers


@contextmanager
def _weights_of(name: str, model: PeftModel) -> Iterator[None]:
    """Makes `model` the policy or the reference within the block."""
    with fitting_threads(model), nullcontext() if name == "policy" else adapter_disabled(model):
        yield


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> TokenIds:
    """The ids of a conversation, or of its last message where the model has no chat template."""
    prompt: Text = messages if tokenizer.chat_template else messages[-1]["content"]
    (ids,) = prompt_ids(tokenizer, [prompt])
    if unknown_text(tokenizer, ids, prompt_text(tokenizer, prompt)):
        raise LabError(
            "The model's vocabulary does not hold all of this text. Write in the signs that it was"
            " trained on."
        )
    return ids
