"""Agreement with held-out pairs: equal for every method, and checked by the model's own forward pass."""

import json

import pytest
import torch

from lab.config.methods import make_config
from lab.data.parsing import load_pairs
from lab.engine.pair_margins import pair_margins
from lab.errors import LabError
from lab.models.adapters import adapter_disabled
from lab.runs.records import StepRecord
from lab.training.loop import prepare, train
from lab.training.pair_agreement import load_eval_pairs

PAIRS = [
    {"prompt": "1+2=", "chosen": "<think>1+2=3</think>3", "rejected": "4"},
    {"prompt": "5*3-1=", "chosen": "14", "rejected": "<think>5*3=15;15-1=14</think>14"},
    {"prompt": "9-4+2=", "chosen": "7", "rejected": "17"},
    {"prompt": "2*2*2=", "chosen": "<think>2*2=4;4*2=8</think>8", "rejected": "6"},
    {"prompt": "8-3+1=", "chosen": "<think>8-3=5;5+1=6</think>6", "rejected": "60"},
    {"prompt": "7+7=", "chosen": "<think>7+7=14</think>14", "rejected": "77"},
]
SHORT = {"steps": 3, "batch_size": 4, "eval_every": 0, "eval_prompts": 4, "task": "chain"}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def files(tmp_path):
    """Pairs to train on; and two groups to measure, of which the second is the first turned round."""
    flipped = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in PAIRS[:3]]
    measured = [row | {"group": "own"} for row in PAIRS[:3]]
    measured += [row | {"group": "rule"} for row in flipped]
    return {
        "data": write(tmp_path / "data.jsonl", PAIRS),
        "pairs": 0,
        "eval_pairs": write(tmp_path / "eval.jsonl", measured),
    }


def trained(method, settings):
    run = prepare(make_config(method, SHORT | settings))
    return run, [record for record in train(run) if isinstance(record, StepRecord)]


def margins_by_own_forward_pass(run, pairs):
    """h of every pair: softmax of all logits, row by row, with the tokenizer called here."""

    def logp(prompt, completion):
        begin = run.tokenizer(prompt)["input_ids"]
        ids = [*begin, *run.tokenizer(completion)["input_ids"], run.tokenizer.eos_token_id]
        logits = run.model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
        return sum(logits[i - 1, ids[i]].item() for i in range(len(begin), len(ids)))

    with torch.no_grad():
        policy = [[logp(p.prompt, t) for t in (p.chosen, p.rejected)] for p in pairs]
        with adapter_disabled(run.model):
            reference = [[logp(p.prompt, t) for t in (p.chosen, p.rejected)] for p in pairs]
    return [(a - ra) - (b - rb) for (a, b), (ra, rb) in zip(policy, reference)]


@pytest.mark.parametrize("method", ["dpo", "ipo", "kto"])
def test_agreement_of_a_policy_is_the_share_of_positive_margins_of_its_own_forward_pass(
    files, method
):
    run, records = trained(method, files)
    assert records[0].metrics["agreement/own"] == records[0].metrics["agreement/rule"] == 0.5
    pairs = load_pairs(files["eval_pairs"])
    expected = margins_by_own_forward_pass(run, pairs)
    margins = pair_margins(run.model, run.tokenizer, pairs, run.device, 128)
    assert margins.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    own = sum(h > 0 for h in expected[:3]) / 3
    assert records[-1].metrics["agreement/own"] == pytest.approx(own)
    assert records[-1].metrics["agreement/rule"] == pytest.approx(1 - own)


def test_a_reward_model_agrees_by_its_score_and_turned_pairs_turn_its_agreement(files):
    _, records = trained("reward_model", files | {"steps": 30, "eval_prompts": 16})
    last = records[-1].metrics
    assert last["agreement/own"] + last["agreement/rule"] == pytest.approx(1)
    assert last["agreement/own"] == 1.0  # Thirty updates on six pairs, three of which are measured.


def test_an_online_method_measures_agreement_too(files):
    settings = {"batch_size": 8, "group_size": 4, "steps": 1, "max_completion_tokens": 8}
    _, records = trained("grpo", settings | {"eval_pairs": files["eval_pairs"]})
    first, last = records[0].metrics, records[-1].metrics
    assert first["agreement/own"] == 0.5
    assert last["agreement/own"] + last["agreement/rule"] == pytest.approx(1)


def test_without_the_setting_a_run_measures_what_it_did(files):
    _, records = trained("dpo", {name: files[name] for name in ("data", "pairs")})
    assert not any(name.startswith("agreement") for name in records[-1].metrics)


def test_a_group_is_optional_and_a_wrong_row_is_named(tmp_path):
    path = write(tmp_path / "a.jsonl", PAIRS[:2])
    assert load_eval_pairs(path)[1] == ["pairs", "pairs"]
    with pytest.raises(LabError, match=r"line 2: 'group' is 'mine', but takes pairs, own, rule"):
        load_eval_pairs(write(tmp_path / "b.jsonl", [PAIRS[0], PAIRS[1] | {"group": "mine"}]))
    with pytest.raises(LabError, match="line 1 has no 'chosen'"):
        load_eval_pairs(write(tmp_path / "c.jsonl", [{"prompt": "1=", "completion": "1"}]))
    with pytest.raises(LabError, match="No data file at"):
        load_eval_pairs(str(tmp_path / "none.jsonl"))
