"""The recorded tokens of pairs and the recorded updates on one prompt, against plain torch."""

import pytest
import torch

from lab.config.methods import make_config
from lab.experiments import one_prompt, pair_tokens
from lab.serving import one_prompt as serving


def test_log_ratios_are_those_of_plain_torch(monkeypatch):
    runs = []
    prepare = pair_tokens.prepare
    monkeypatch.setattr(
        pair_tokens, "prepare", lambda config: runs.append(prepare(config)) or runs[0]
    )
    config = make_config(
        "dpo", {"steps": 2, "eval_every": 0, "eval_prompts": 2, "batch_size": 4, "device": "cpu"}
    )
    row = pair_tokens.probe(config, (0, 2), 2)
    (run,) = runs
    assert row["steps"] == [0, 2] and row["beta"] == 0.1 and len(row["pairs"]) == 2

    def logps(prompt, completion):
        chosen = run.model(input_ids=torch.tensor([prompt + completion])).logits.log_softmax(-1)
        places = torch.arange(len(prompt) - 1, len(prompt) + len(completion) - 1)
        return chosen[0, places, completion]

    for pair in row["pairs"]:
        prompt = run.tokenizer(pair["prompt"])["input_ids"]
        for side in ("chosen", "rejected"):
            completion = run.tokenizer.convert_tokens_to_ids(pair[side]["tokens"])
            with torch.no_grad(), run.model.disable_adapter():
                reference = logps(prompt, completion)
            with torch.no_grad():
                ratios = logps(prompt, completion) - reference
            assert pair[side]["ratios"][0] == [0.0] * len(completion)
            # Differences of numbers near 1 in 32 bits.
            assert pair[side]["ratios"][1] == pytest.approx(ratios.tolist(), rel=1e-3, abs=2e-5)
            assert ratios.abs().max() > 1e-3


def test_the_updates_on_one_prompt_are_measured_one_by_one(monkeypatch, tmp_path):
    monkeypatch.setattr(serving, "HELD_OUT_PROMPTS", 4)
    monkeypatch.setattr(serving, "FRESH_SAMPLES", 4)
    monkeypatch.setattr(one_prompt, "UPDATES", 2)
    table = one_prompt.run_experiment(tmp_path, 1, "cpu", 1)
    (row,) = table["rows"]
    assert [*row["measured"]] == ["0", "1", "2"] and len(row["groups"]) == 3
    report = (tmp_path / "report.md").read_text("utf-8").splitlines()
    assert [line.split(" | ")[1] for line in report[6:]] == ["0", "1", "2"]
