import pytest
import torch

from lab.config.methods import make_config
from lab.engine.generate import decode
from lab.engine.sampler import sample
from lab.models.loading import load_policy
from lab.models.tokenizer import load_tokenizer

CPU = torch.device("cpu")
PROMPTS = ["7+5*3-4*2=", "9-4+1=", "3*3*3+1=", "8+8-1*2+6-3="]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("embedded")


@pytest.fixture(scope="module")
def model():
    policy = load_policy(make_config("grpo"), CPU)
    torch.manual_seed(1)
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return policy


def draw(model, tokenizer, prompts, group_size, **options):
    settings = {"max_tokens": 40, "temperature": 1.0, "seed": 0, "step": 1, "device": CPU} | options
    return sample(model, tokenizer, tokenizer(prompts)["input_ids"], group_size, **settings)


def row(completions, i):
    return completions.ids[i][completions.completion_mask[i]].tolist()


def test_near_zero_temperature_gives_the_tokens_of_the_stock_greedy_generator(model, tokenizer):
    completions = draw(model, tokenizer, PROMPTS, 2, temperature=1e-4)
    for i, prompt in enumerate(PROMPTS):
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        stock = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40
        )[0, ids.shape[1] :].tolist()
        assert row(completions, 2 * i) == row(completions, 2 * i + 1) == stock


def test_first_tokens_are_distributed_as_the_model_says(model, tokenizer):
    completions = draw(model, tokenizer, PROMPTS[:1], 4000, max_tokens=1)
    counts = torch.bincount(
        completions.ids[completions.completion_mask], minlength=len(tokenizer)
    ).double()
    ids = torch.tensor([tokenizer(PROMPTS[0])["input_ids"]])
    expected = 4000 * torch.softmax(model(input_ids=ids).logits[0, -1].double(), -1)
    rare = expected < 5
    counts_pooled = torch.cat([counts[~rare], counts[rare].sum()[None]])
    expected_pooled = torch.cat([expected[~rare], expected[rare].sum()[None]])
    chi_square = (
        ((counts_pooled - expected_pooled) ** 2 / expected_pooled.clamp(min=1e-9)).sum().item()
    )
    freedom = len(counts_pooled) - 1
    assert (
        chi_square < freedom + 4 * (2 * freedom) ** 0.5
    )  # Four standard deviations of the chi-square distribution.


def test_the_same_seed_and_step_draw_the_same_completions_and_another_step_does_not(
    model, tokenizer
):
    first, again, later = (draw(model, tokenizer, PROMPTS, 4, step=s) for s in (1, 1, 2))
    assert torch.equal(first.ids, again.ids) and first.texts == again.texts
    assert first.texts != later.texts


def test_a_row_is_its_prompt_then_its_completion_then_padding(model, tokenizer):
    completions = draw(model, tokenizer, PROMPTS, 3)
    for i in range(len(PROMPTS) * 3):
        prompt = tokenizer(PROMPTS[i // 3])["input_ids"]
        n = int(completions.lengths[i])
        assert completions.ids[i, : len(prompt)].tolist() == prompt
        assert completions.completion_mask[i].tolist() == [
            len(prompt) <= t < len(prompt) + n for t in range(completions.ids.shape[1])
        ]
        assert (completions.ids[i, len(prompt) + n :] == tokenizer.pad_token_id).all()
        completion = row(completions, i)
        assert (completion[-1] == tokenizer.eos_token_id) != bool(completions.truncated[i])
        assert tokenizer.eos_token_id not in completion[:-1]
        assert tokenizer.decode(completion, skip_special_tokens=True) == completions.texts[i]


def test_prompts_of_other_lengths_in_the_batch_do_not_change_a_greedy_completion(model, tokenizer):
    together = draw(model, tokenizer, PROMPTS, 1, temperature=1e-4)
    for i, prompt in enumerate(PROMPTS):
        assert together.texts[i] == draw(model, tokenizer, [prompt], 1, temperature=1e-4).texts[0]


def test_a_completion_that_meets_the_limit_is_marked_truncated(model, tokenizer):
    completions = draw(model, tokenizer, PROMPTS, 2, max_tokens=1)
    assert completions.lengths.tolist() == [1] * 8
    assert completions.truncated.tolist() == [
        row(completions, i)[0] != tokenizer.eos_token_id for i in range(8)
    ]


@pytest.mark.parametrize("at_a_time", [1, 3])
def test_prompts_that_do_not_fit_together_get_the_completions_that_they_would_get_together(
    model, tokenizer, monkeypatch, at_a_time
):
    whole, half = (
        draw(model, tokenizer, PROMPTS, 3),
        draw(model, tokenizer, PROMPTS[2:], 3, shard=(1, 2)),
    )
    a_token = 2 * 2 * 112 * 4  # Keys and values of two layers of width 112 in float32.
    longest = max(len(tokenizer(p)["input_ids"]) for p in PROMPTS) + 40
    monkeypatch.setattr("lab.engine.sampler.MAX_CACHE_BYTES", at_a_time * 3 * a_token * longest)
    batches = []
    monkeypatch.setattr(
        "lab.engine.sampler.decode",
        lambda *args, **kwargs: batches.append(args[3].rows) or decode(*args, **kwargs),
    )
    again = draw(model, tokenizer, PROMPTS, 3)
    assert batches == [1] * 4 if at_a_time == 1 else batches == [3, 1]
    assert again.texts == whole.texts and [row(again, i) for i in range(12)] == [
        row(whole, i) for i in range(12)
    ]
    assert again.truncated.tolist() == whole.truncated.tolist()
    assert draw(model, tokenizer, PROMPTS[2:], 3, shard=(1, 2)).texts == half.texts
