"""TODO: one line."""

from collections.abc import Iterable, Iterator

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lab.config.input_checks import require_text
from lab.data.chat_template import prompt_text
from lab.data.encoding import prompt_ids, unknown_text
from lab.engine.sampler import sample
from lab.errors import LabError
from lab.models.adapters import adapter_disabled
from lab.models.loading import fitting_threads
from lab.models.tokenizer import load_tokenizer
from lab.runs.folder import RunFolder
from lab.serving.load import load_run

RESET_COMMAND = "/reset"


def chat(
    folder: RunFolder,
    lines: Iterable[str],
    *,
    temperature: float = 0.7,
    max_tokens: int = 256,
    seed: int = 0,
    device: str = "auto",
) -> Iterator[dict[str, str]]:
    """Answer each line twice: {"reference": …, "policy": …}, by a run's policy and by its base,
    each going on from its own answers so far.

    With a chat template a line is what the user says; without one, each line is a text to be
    continued and nothing is remembered. `/reset` forgets what was said. The noise depends on seed,
    turn and text alone, so both draw alike until their distributions part. A line that cannot be
    read comes back as {"error": …}.
    """
    config, model = load_run(folder, device)
    tokenizer = load_tokenizer(config.model, config.template_options)
    said: dict[str, list[dict[str, str]]] = {"reference": [], "policy": []}
    for turn, line in enumerate(line.strip() for line in lines):
        if line == RESET_COMMAND:
            said = {name: [] for name in said}
        elif line:
            answers = {}
            try:
                require_text("the line", line)
                for name, before in said.items():
                    prompt = [*before, {"role": "user", "content": line}]
                    answers[name] = _answer(
                        model,
                        tokenizer,
                        prompt,
                        name,
                        step=turn,
                        max_tokens=max_tokens,
                        temperature=temperature,
                        seed=seed,
                    )
            except LabError as error:
                yield {"error": str(error)}
                continue
            for name, answer in answers.items():
                said[name] += [
                    {"role": "user", "content": line},
                    {"role": "assistant", "content": answer},
                ]
            yield answers


def _answer(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, str]],
    name: str,
    **options: float,
) -> str:
    prompt = messages if tokenizer.chat_template else messages[-1]["content"]
    (ids,) = prompt_ids(tokenizer, [prompt])
    if unknown_text(tokenizer, ids, prompt_text(tokenizer, prompt)):
        raise LabError(
            "The model's vocabulary does not hold all of this text. Write in the signs that it was"
            " trained on."
        )
    with fitting_threads(model):
        if name == "policy":
            return sample(
                model, tokenizer, [ids], 1, device=model.device, stream="chat", **options
            ).texts[0]
        with adapter_disabled(model):
            return sample(
                model, tokenizer, [ids], 1, device=model.device, stream="chat", **options
            ).texts[0]
