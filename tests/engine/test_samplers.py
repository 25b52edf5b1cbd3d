"""Engines for sampling: each gives completions of the weights as they are now, with the
log-probabilities that it sampled with, and says in words why it cannot.
"""

import socket
from dataclasses import replace

import pytest
import torch
from support.vllm_stand_in import stand_in

from lab.config.methods import make_config
from lab.engine.decode_any_model import base_of
from lab.engine.samplers.base import LabSampler, SamplingRequest
from lab.engine.samplers.continuous_batching import TransformersSampler
from lab.engine.samplers.vllm import VLLMSampler
from lab.engine.samplers.vllm_client import VLLMServer
from lab.engine.truncation import Truncation
from lab.errors import LabError
from lab.models.loading import load_policy
from lab.models.sources import EMBEDDED
from lab.models.tokenizer import load_tokenizer

CPU = torch.device("cpu")
PROMPTS = ["7+5*3-4*2=", "9-4+1=", "3*3*3+1="]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("embedded")


@pytest.fixture
def model():
    policy = load_policy(make_config("grpo"), CPU)
    move(policy, 1)
    return policy


@pytest.fixture
def request_(tokenizer):
    return SamplingRequest(
        tokenizer(PROMPTS)["input_ids"],
        2,
        max_tokens=8,
        temperature=0.8,
        seed=3,
        step=1,
        device=CPU,
    )


def move(policy, seed):
    """Give the adapter other weights, as an update does."""
    source = torch.Generator().manual_seed(seed)
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.08, generator=source)


def stock_logps(model, completions, temperature):
    """Log-probabilities (N, T) of the tokens by transformers' own forward pass, row by row."""
    whole = torch.zeros(completions.ids.shape)
    for i, (ids, mask) in enumerate(zip(completions.ids, completions.completion_mask)):
        end = int(mask.nonzero().max()) + 1
        with torch.no_grad():
            logits = model(input_ids=ids[None, :end]).logits[0].double()
        scores = torch.log_softmax(logits / temperature, -1)
        places = mask.nonzero().flatten()
        whole[i, places] = scores[places - 1, ids[places]].float()
    return whole


def require_rows(completions, request, tokenizer):
    """Each row is its own prompt, then a completion that ends at its end token or at the limit."""
    assert len(completions.ids) == len(PROMPTS) * request.group_size
    for i, (ids, mask) in enumerate(zip(completions.ids, completions.completion_mask)):
        prompt, tokens = request.prompts[i // request.group_size], ids[mask].tolist()
        assert ids[: len(prompt)].tolist() == prompt and not mask[: len(prompt)].any()
        ended = tokens[-1] == tokenizer.eos_token_id
        assert ended != bool(completions.truncated[i])
        assert ended or len(tokens) == request.max_tokens
        assert tokenizer.decode(tokens, skip_special_tokens=True) == completions.texts[i]


def test_the_fast_and_the_plain_sampler_of_the_lab_give_the_same_completions(
    model, tokenizer, request_
):
    fast, plain = (LabSampler(plain=p).sample(model, tokenizer, request_) for p in (False, True))
    require_rows(fast, request_, tokenizer)
    assert torch.equal(fast.ids, plain.ids) and fast.texts == plain.texts
    assert fast.logps is None and plain.logps is None


def test_shards_of_a_batch_have_the_seeds_of_the_whole(request_):
    whole = [request_.seed_of(i) for i in range(3)]
    assert len(set(whole)) == 3 and all(0 <= seed < 2**62 for seed in whole)
    last = replace(request_, prompts=request_.prompts[2:], shard=(2, 3))
    assert last.seed_of(0) == whole[2]
    assert replace(request_, step=2).seed_of(0) not in whole


def test_continuous_batching_gives_the_probabilities_of_the_policy(model, tokenizer, request_):
    weights = {name: weight.clone() for name, weight in model.named_parameters()}
    torch.manual_seed(5)
    expected_next = torch.rand(1)
    torch.manual_seed(5)
    completions = TransformersSampler().sample(model, tokenizer, request_)
    assert torch.equal(torch.rand(1), expected_next)  # The run's random numbers go on as before.
    require_rows(completions, request_, tokenizer)
    torch.testing.assert_close(
        completions.logps, stock_logps(model, completions, 0.8), rtol=1e-4, atol=1e-5
    )
    assert all(torch.equal(weights[name], weight) for name, weight in model.named_parameters())
    assert "paged" not in base_of(model).config._attn_implementation


def test_continuous_batching_repeats_with_a_seed_and_follows_the_weights(
    model, tokenizer, request_
):
    sampler = TransformersSampler()
    first, again = (sampler.sample(model, tokenizer, request_) for _ in range(2))
    later = sampler.sample(model, tokenizer, replace(request_, step=2))
    assert torch.equal(first.ids, again.ids) and first.texts != later.texts
    move(model, 2)
    moved = sampler.sample(model, tokenizer, request_)
    torch.testing.assert_close(moved.logps, stock_logps(model, moved, 0.8), rtol=1e-4, atol=1e-5)


def test_continuous_batching_with_top_k_1_is_the_stock_greedy_generator(model, tokenizer, request_):
    completions = TransformersSampler().sample(
        model, tokenizer, replace(request_, truncation=Truncation(top_k=1))
    )
    for i, tokens in enumerate(completions.completion_ids):
        ids = torch.tensor([request_.prompts[i // 2]])
        stock = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8
        )
        assert tokens == stock[0, ids.shape[1] :].tolist()
    assert completions.logps.abs().max() < 1e-6


@pytest.mark.parametrize("outcome", [RuntimeError("no kernel for this device"), {}])
def test_continuous_batching_that_fails_is_an_error_that_names_the_labs_sampler(
    model, tokenizer, request_, monkeypatch, outcome
):
    def generate_batch(*args, **options):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(base_of(model), "generate_batch", generate_batch)
    expected = "no kernel for this device" if outcome else "0 of 6 completions came back"
    with pytest.raises(LabError, match=f"on cpu .*{expected}.*Leave --sampler out"):
        TransformersSampler().sample(model, tokenizer, request_)


def vllm(server, tmp_path, model="embedded", seconds=60.0):
    return VLLMSampler(VLLMServer("127.0.0.1", server.port, seconds), model, tmp_path / "sampler")


def test_a_server_samples_from_the_weights_of_each_push(model, tokenizer, request_, tmp_path):
    with stand_in(EMBEDDED) as server:
        sampler = vllm(server, tmp_path)
        sampler.require_model()
        before = sampler.sample(model, tokenizer, request_)
        expected_before = stock_logps(model, before, 0.8)
        move(model, 2)
        after = sampler.sample(model, tokenizer, request_)
        expected_after = stock_logps(model, after, 0.8)
    for completions, expected in ((before, expected_before), (after, expected_after)):
        require_rows(completions, request_, tokenizer)
        torch.testing.assert_close(completions.logps, expected, rtol=1e-4, atol=1e-4)
    assert (stock_logps(model, before, 0.8) - expected_before).abs().max() > 0.1
    loads = [
        body["lora_name"] for path, body in server.requests if path.endswith("load_lora_adapter")
    ]
    assert len(loads) == 3 and loads[0] == loads[1] != loads[2]  # One is unloaded in between.
    assert list(server.adapters) == [loads[2]]
    assert [path.name for path in (tmp_path / "sampler").iterdir()] == [loads[2]]


def test_a_server_gets_all_settings_and_a_seed_of_its_own_for_each_prompt(
    model, tokenizer, request_, tmp_path
):
    with stand_in(EMBEDDED) as server:
        vllm(server, tmp_path).sample(model, tokenizer, request_)
    asked = [body for path, body in server.requests if path == "/v1/completions"]
    asked.sort(key=lambda body: request_.prompts.index(body["prompt"]))
    assert [body["prompt"] for body in asked] == request_.prompts
    assert [body["seed"] for body in asked] == [request_.seed_of(i) for i in range(3)]
    for body in asked:
        assert body["temperature"] == 0.8 and body["n"] == 2 and body["max_tokens"] == 8
        assert (body["top_k"], body["top_p"], body["min_p"]) == (0, 1.0, 0.0)
        assert body["repetition_penalty"] == 1.0  # Or the model's own generation config counts.
        assert body["stop_token_ids"] == [tokenizer.eos_token_id]


def test_a_server_with_another_model_is_refused(tmp_path):
    with stand_in(tmp_path / "qwen", names=["qwen-chat"]) as server:
        with pytest.raises(LabError, match="serves qwen-chat, .*but the model of this run is 'emb"):
            vllm(server, tmp_path).require_model()


@pytest.mark.parametrize("names", [[str(EMBEDDED)], ["embedded"], ["team/embedded_model"]])
def test_a_server_may_call_the_model_by_its_folder_or_name(tmp_path, names):
    with stand_in("/other/machine/base", names=names) as server:
        vllm(server, tmp_path).require_model()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"applies_adapters": False}, "samples from other weights than those that are trained"),
        ({"loads_adapters": False}, "loads no adapters while it runs .*404.*VLLM_ALLOW_RUNTIME"),
        ({"gives_ids": False}, "without token ids and log-probabilities"),
    ],
)
def test_a_server_that_does_not_fit_is_refused_in_words(
    model, tokenizer, request_, tmp_path, options, message
):
    move(model, 4)
    with stand_in(EMBEDDED, **options) as server, pytest.raises(LabError, match=message):
        vllm(server, tmp_path).sample(model, tokenizer, request_)


def test_a_server_that_refuses_an_adapter_gives_its_own_reason(
    model, tokenizer, request_, tmp_path, monkeypatch
):
    with stand_in(EMBEDDED) as server:
        monkeypatch.setattr(
            server, "load", lambda name, path: (500, {"error": {"message": "rank 8 is above 4"}})
        )
        with pytest.raises(LabError, match="500: rank 8 is above 4.*allow the adapter's rank"):
            vllm(server, tmp_path).sample(model, tokenizer, request_)


def test_a_server_that_does_not_answer_is_given_up(tmp_path):
    with stand_in(EMBEDDED) as server:
        server.hangs = True
        with pytest.raises(LabError, match="not answered /v1/models within sampler_seconds, 0.1 s"):
            vllm(server, tmp_path, seconds=0.1).require_model()


def test_a_server_that_is_not_there_cannot_be_reached(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = VLLMServer("127.0.0.1", free.getsockname()[1], 60.0)
        with pytest.raises(LabError, match="cannot be reached .*--resume"):
            VLLMSampler(server, "embedded", tmp_path).require_model()


def test_the_key_of_a_server_is_sent(tmp_path, monkeypatch):
    keys = []
    with stand_in(EMBEDDED) as server:
        handler = server.http.RequestHandlerClass
        answer = handler.answer
        monkeypatch.setattr(
            handler,
            "answer",
            lambda self, body: keys.append(self.headers["Authorization"]) or answer(self, body),
        )
        vllm(server, tmp_path).require_model()
        monkeypatch.setenv("VLLM_API_KEY", "a-key")
        vllm(server, tmp_path).require_model()
    assert keys == [None, "Bearer a-key"]
