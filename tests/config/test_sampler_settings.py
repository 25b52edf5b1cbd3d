"""The engine that samples: accepted words, and settings that do not go together."""

import pytest

from lab.config.json_format import from_dict, to_dict
from lab.config.methods import make_config
from lab.config.sampler_settings import server_address
from lab.config.user_code import require_offered
from lab.errors import LabError


@pytest.mark.parametrize(
    "text, expected",
    [
        ("vllm://node7:8000", ("node7", 8000)),
        ("vllm://10.0.0.3:80", ("10.0.0.3", 80)),
        ("vllm://[::1]:8000", ("::1", 8000)),
        ("lab", None),
        ("transformers", None),
    ],
)
def test_an_address_names_host_and_port(text, expected):
    assert server_address(text) == expected
    config = make_config("grpo", {"sampler": text})
    assert from_dict(to_dict(config)) == config


@pytest.mark.parametrize(
    "text", ["vllm", "vllm://node7", "http://node7:8000", "vllm://a b:1", "vllm://x:y", "vllm:8000"]
)
def test_another_word_is_refused_with_those_that_are_accepted(text):
    with pytest.raises(LabError, match=r"vllm://HOST:PORT"):
        make_config("grpo", {"sampler": text})


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"sampler": "transformers", "shard": True}, "shard is on"),
        ({"sampler": "vllm://a:1", "shard": True}, "shard is on"),
        ({"sampler": "vllm://a:1", "use_dora": True}, "vLLM serves no DoRA"),
        (
            {"sampler": "vllm://a:1", "lora_rank": 0},
            "lora_rank is 0, but a vLLM server gets an adapter",
        ),
        ({"sampler": "vllm://a:70000"}, "a port is a number from 1 to 65535"),
        ({"sampler": "vllm://a:0"}, "a port is a number from 1 to 65535"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(LabError, match=message):
        make_config("grpo", settings)


def test_a_page_offers_no_server():
    require_offered(make_config("ppo", {"sampler": "transformers"}))
    with pytest.raises(LabError, match="only the command line takes"):
        require_offered(make_config("ppo", {"sampler": "vllm://localhost:8000"}))
