"""The report of a run in Markdown, which is also the model card of its adapter, or of its whole
model, on the Hugging Face hub.
"""

import math
import re
from typing import Any

from lab.analysis.diagnose import MetricColumn
from lab.config.number_text import number_text
from lab.figures.run_curves import RunCurves, panels_with_data
from lab.runs.folder import RunFolder
from lab.runs.metrics import METRICS
from lab.serving.run_facts import Example, Rows, RunFacts, run_facts

BLOCKS = "▁▂▃▄▅▆▇█"
MAX_BLOCKS = 24
"""Characters of a curve."""
MAX_METRICS = 12
MAX_TEXT = 800
"""Characters of a prompt or a completion."""


def model_card(folder: RunFolder, base: str = "") -> str:
    """Return the report of a run in Markdown, with the metadata that the hub reads at its beginning.

    `base` is the hub id of the base, by default the run's own. Raises `LabError` where the config of
    the run cannot be read.
    """
    facts = run_facts(folder)
    parts = [
        _front_matter(facts, base or facts.base),
        f"# {facts.name}",
        _summary(facts, base or facts.base),
        *_section("What the diagnosis says", _bullets(facts.findings)),
        *_section("Curves", _curves(facts)),
        *_section("Before and after", _examples(facts.examples)),
        *_section("Cost", _table(("", ""), facts.cost)),
        *_section("Changed while it trained", _table(("when", "change"), facts.changed)),
        *_section("Notes", _bullets(facts.notes)),
        *_section(
            f"How to use the {'model' if facts.is_whole else 'adapter'}",
            _usage(facts, base or facts.base),
        ),
        *_section("Repeat the run", _repeat(facts)),
        *_section("Settings", _table(("setting", "value"), facts.settings)),
        *_section("Versions", _table(("package", "version"), facts.versions)),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: RunFacts, base: str) -> str:
    import yaml

    data: dict[str, Any] = {}
    if base:
        relation = "finetune" if facts.is_whole else "adapter"
        data |= {"base_model": base, "base_model_relation": relation}
    data["library_name"] = "transformers" if facts.is_whole else "peft"
    data["tags"] = ["alignment-lab", *([] if facts.is_whole else ["lora"]), facts.method]
    if facts.method != "reward_model":
        data["pipeline_tag"] = "text-generation"
    if facts.dataset:
        data["datasets"] = [facts.dataset]
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True)}---"


def _section(title: str, text: str) -> list[str]:
    return [f"## {title}", text] if text else []


def _summary(facts: RunFacts, base: str) -> str:
    known = base or (
        "the embedded model of Alignment lab"
        if facts.model == "embedded"
        else f"{facts.model}, a model that is not on the hub"
    )
    made = "All weights of" if facts.is_whole else "A LoRA adapter for"
    text = f"{made} {_plain(known)}, trained by {facts.title} with Alignment lab."
    weights = "model" if facts.is_whole else "adapter"
    ending = f"{_plain(facts.ending)}"
    if facts.trained_step is not None:
        ending += f" The {weights} is that of update {facts.trained_step}."
    else:
        ending += f" It has left no {weights}."
    return f"{text} {ending} It is one run with one seed; another seed gives other numbers."


def _bullets(texts: list[str]) -> str:
    return "\n".join(f"- {_plain(text)}" for text in texts)


def _plain(text: str) -> str:
    """A text without Markdown and HTML of its own, on one line."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(text.split()))


def _table(head: tuple[str, str], rows: Rows) -> str:
    if not rows:
        return ""
    lines = [f"| {head[0]} | {head[1]} |", "| --- | --- |"]
    return "\n".join(lines + [f"| {_plain(name)} | {_plain(value)} |" for name, value in rows])


def _curves(facts: RunFacts) -> str:
    """A line for each metric: its values at the first and at the last update, the lowest, the highest,
    and the curve in blocks.
    """
    curves = RunCurves(facts.name, facts.method, facts.name, facts.columns)
    lines = []
    for name in panels_with_data([curves])[:MAX_METRICS]:
        steps, values = facts.columns[name]
        finite = [(step, value) for step, value in zip(steps, values) if math.isfinite(value)]
        if not finite:
            lines.append(f"| {METRICS[name].label} (`{name}`) | not finite | | | | |")
            continue
        first, last = finite[0], finite[-1]
        numbers = [
            f"{_number(first[1])} at {first[0]}",
            f"{_number(last[1])} at {last[0]}",
            _number(min(value for _, value in finite)),
            _number(max(value for _, value in finite)),
        ]
        cells = [f"{METRICS[name].label} (`{name}`)", *numbers, block_curve((steps, values))]
        lines.append(f"| {' | '.join(cells)} |")
    if not lines:
        return "The run has measured nothing."
    head = ["| metric | first | last | lowest | highest | curve |", "| --- |" + " --- |" * 5]
    return "\n".join([*head, *lines])


def _number(value: float) -> str:
    return number_text(float(value))


def block_curve(column: MetricColumn) -> str:
    """Return a curve as at most `MAX_BLOCKS` characters, each the mean of equally many values in a row,
    from ▁ at the lowest to █ at the highest. A part without a finite value is a space.

    Anchor: the values 0, 1 are "▁█"; the values 2, 2 are "▁▁".
    """
    values = list(column[1])
    count = min(MAX_BLOCKS, len(values))
    edges = [round(i * len(values) / count) for i in range(count + 1)] if count else [0]
    means = []
    for start, end in zip(edges, edges[1:]):
        finite = [value for value in values[start:end] if math.isfinite(value)]
        means.append(sum(finite) / len(finite) if finite else math.nan)
    known = [mean for mean in means if math.isfinite(mean)]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    scale = (len(BLOCKS) - 1) / span if span else 0.0
    return "".join(
        BLOCKS[round((mean - low) * scale)] if math.isfinite(mean) else " " for mean in means
    )


def _examples(examples: list[Example]) -> str:
    if not examples:
        return "The run has recorded no completions of held-out prompts."
    parts = []
    for example in examples:
        parts.append(f"Prompt:\n\n{_fenced(example.prompt)}")
        before, after = example.steps
        parts.append(_completion(before, example.texts[0], example.verdicts[0]))
        if after != before:
            parts.append(_completion(after, example.texts[1], example.verdicts[1]))
    return "\n\n".join(parts)


def _completion(step: int, text: str, verdict: str) -> str:
    when = "Before training" if step == 0 else f"After update {step}"
    return f"{when}{f' ({verdict})' if verdict else ''}:\n\n{_fenced(text)}"


def _fenced(text: str) -> str:
    """A text as a code block, whose fence is longer than every run of backticks in the text."""
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]} … ({len(text)} characters)"
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _usage(facts: RunFacts, base: str) -> str:
    if facts.trained_step is None or facts.method == "reward_model":
        return ""
    if facts.is_whole:
        return (
            "```python\n"
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained("FOLDER OR HUB ID OF THIS MODEL")\n'
            'tokenizer = AutoTokenizer.from_pretrained("FOLDER OR HUB ID OF THIS MODEL")\n'
            "```"
        )
    source = f'"{base}"' if base else '"FOLDER OF THE BASE"'
    return (
        "```python\n"
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"base = AutoModelForCausalLM.from_pretrained({source})\n"
        'model = PeftModel.from_pretrained(base, "FOLDER OR HUB ID OF THIS ADAPTER")\n'
        f"tokenizer = AutoTokenizer.from_pretrained({source})\n"
        "```"
    )


def _repeat(facts: RunFacts) -> str:
    if not facts.command:
        return ""
    text = f"```\n{facts.command}\n```\n\nThe file `run.yaml` of the run holds every setting, for"
    text += " `alab train --config run.yaml`."
    if facts.changed:
        text += " The changes that were made while it trained are not repeated."
    return text
