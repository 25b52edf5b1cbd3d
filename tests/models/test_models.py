import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from lab.config.methods import make_config
from lab.data.batching import TokenBatch
from lab.engine.token_logprobs import score
from lab.errors import LabError
from lab.models.adapters import adapter_disabled, adapter_merged
from lab.models.device import resolve_device
from lab.models.loading import fitting_threads, load_policy, load_reward_model
from lab.models.sources import EMBEDDED
from lab.models.tokenizer import load_tokenizer

CPU = torch.device("cpu")


def moved_policy():
    policy = load_policy(make_config("dpo"), CPU)
    torch.manual_seed(2)
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return policy


@pytest.fixture
def ids():
    return torch.randint(3, 20, (3, 12), generator=torch.Generator().manual_seed(0))


def test_a_fresh_policy_equals_the_plain_base(ids):
    plain = AutoModelForCausalLM.from_pretrained(EMBEDDED)
    assert torch.equal(
        load_policy(make_config("dpo"), CPU)(input_ids=ids).logits, plain(input_ids=ids).logits
    )


def test_the_reference_is_the_plain_base_however_far_the_policy_moved(ids):
    plain, policy = AutoModelForCausalLM.from_pretrained(EMBEDDED), moved_policy()
    assert not torch.allclose(policy(input_ids=ids).logits, plain(input_ids=ids).logits)
    with adapter_disabled(policy):
        assert torch.equal(policy(input_ids=ids).logits, plain(input_ids=ids).logits)


def test_merging_keeps_the_logits_and_restores_the_weights_to_the_bit(ids):
    policy = moved_policy()
    before = {name: weight.clone() for name, weight in policy.named_parameters()}
    expected = policy(input_ids=ids).logits
    with adapter_merged(policy), torch.no_grad():
        inside = policy(input_ids=ids).logits
    torch.testing.assert_close(
        inside, expected, rtol=1e-4, atol=1e-4
    )  # float32: the sum W + BA is rounded before the product, not after.
    assert all(torch.equal(before[name], weight) for name, weight in policy.named_parameters())
    assert torch.equal(policy(input_ids=ids).logits, expected)


def test_merging_restores_the_weights_after_an_error():
    policy = moved_policy()
    before = {name: weight.clone() for name, weight in policy.named_parameters()}
    with pytest.raises(RuntimeError), adapter_merged(policy):
        raise RuntimeError
    assert all(torch.equal(before[name], weight) for name, weight in policy.named_parameters())


def test_only_lora_weights_are_trained_and_they_sit_on_every_linear_layer_but_the_head():
    policy = load_policy(make_config("dpo", {"lora_rank": 4}), CPU)
    trained = [name for name, weight in policy.named_parameters() if weight.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    assert not any("lm_head" in name for name in trained)
    linear = [
        m
        for m in AutoModelForCausalLM.from_pretrained(EMBEDDED).modules()
        if isinstance(m, torch.nn.Linear)
    ]
    assert len(trained) == 2 * (len(linear) - 1)


def test_a_saved_adapter_loads_with_plain_peft(ids, tmp_path):
    policy = moved_policy()
    policy.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(EMBEDDED), tmp_path)
    assert torch.equal(loaded(input_ids=ids).logits, policy(input_ids=ids).logits)


def test_the_seed_decides_the_adapter():
    a, b, c = (load_policy(make_config("dpo", {"seed": s}), CPU) for s in (0, 0, 1))
    weight = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    assert torch.equal(a.get_parameter(weight), b.get_parameter(weight))
    assert not torch.equal(a.get_parameter(weight), c.get_parameter(weight))


def test_a_reward_is_read_at_the_last_token_and_padding_does_not_change_it(ids):
    model = load_reward_model(make_config("reward_model"), CPU)

    def read(ids, last):
        return score(model, TokenBatch(ids, torch.arange(ids.shape[1])[None] == last))

    alone = read(ids[:1, :7], 6)
    end = load_tokenizer("embedded").eos_token_id
    padded = torch.cat([ids[:1, :7], torch.full((1, 5), end)], 1)
    torch.testing.assert_close(read(padded, 6), alone, rtol=1e-5, atol=1e-6)
    assert alone.shape == (1,) and not torch.allclose(read(padded, 9), alone)


def test_the_embedded_base_loads_with_the_plain_auto_classes():
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    assert tokenizer.decode(tokenizer("7+5*3=")["input_ids"]).replace(" ", "") == "7+5*3="


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "nowhere"])
def test_a_model_path_that_does_not_exist_is_named(name):
    with pytest.raises(LabError, match=name):
        load_tokenizer(name)


@pytest.mark.parametrize("text", ["gpu", "cuda:99", "mps"])
def test_a_device_that_is_not_there_is_named(text):
    with pytest.raises(LabError, match=text):
        resolve_device(text)


def test_a_small_model_computes_in_one_thread_and_the_setting_comes_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with fitting_threads(torch.nn.Linear(2, 2)):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with fitting_threads(torch.nn.Linear(2300, 2300)):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
