"""Where LoRA goes: the layers that are named, those that peft can adapt, and a word for those that
stay as they are.
"""

import pytest
import torch
from peft.tuners.lora import LoraLayer
from support.architectures import save
from support.tiny import save as save_tiny

from lab.config.methods import make_config
from lab.errors import LabError
from lab.models.loading import load_policy
from lab.models.lora import lora_notes
from lab.runs.folder import create
from lab.serving.export import merge

CPU = torch.device("cpu")


def policy(folder, **knobs):
    return load_policy(make_config("dpo", {"model": folder, "device": "cpu"} | knobs), CPU)


def adapted(model):
    return {
        name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, LoraLayer)
    }


@pytest.mark.parametrize(
    "given, names",
    [
        ("q_proj,v_proj", {"q_proj", "v_proj"}),
        ("mlp.down_proj", {"down_proj"}),
        ("q_proj , o_proj", {"q_proj", "o_proj"}),
        (
            "all-linear",
            {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
        ),
    ],
)
def test_lora_goes_on_the_layers_that_are_named(tmp_path, given, names):
    assert adapted(policy(save_tiny(tmp_path), lora_targets=given)) == names


@pytest.mark.parametrize(
    "given, says",
    [
        (
            "query",
            (
                "names 'query', but this model has no such layer. Accepted: all-linear, or names"
                " from down_proj, gate_proj"
            ),
        ),
        ("q_proj,lm_head", "names 'lm_head', the vocabulary"),
        ("embed_tokens", "names 'embed_tokens', the vocabulary"),
    ],
)
def test_a_layer_that_cannot_be_named_is_refused_with_those_that_can(tmp_path, given, says):
    with pytest.raises(LabError, match=says):
        policy(save_tiny(tmp_path), lora_targets=given)


@pytest.mark.parametrize("given", ["", "q_proj,,v_proj", "q_proj v_proj", "a*"])
def test_names_are_written_with_commas(given):
    with pytest.raises(LabError, match="lora_targets"):
        make_config("dpo", {"lora_targets": given})


def test_what_peft_refuses_is_one_line_that_names_it_and_the_answer(tmp_path):
    folder = save(tmp_path, "mamba")
    with pytest.raises(
        LabError,
        match=(
            "with lora_targets 'conv1d' .*'conv1d' is incompatible with Mamba.*Accepted:"
            " all-linear, or names from"
        ),
    ) as caught:
        policy(folder, lora_targets="conv1d")
    assert "\n" not in str(caught.value)
    assert adapted(policy(folder, lora_targets="in_proj")) == {"in_proj"}


@pytest.mark.parametrize(
    "kind, left, layers",
    [
        ("mamba", ["dt_proj", "out_proj"], {"in_proj", "x_proj"}),
        ("mamba2", ["out_proj"], {"in_proj"}),
    ],
)
def test_layers_whose_weights_are_read_past_an_adapter_get_none_and_that_is_said(
    tmp_path, kind, left, layers
):
    folder = save(tmp_path, kind)
    model = policy(folder)
    assert adapted(model) == layers
    assert lora_notes(model) == [
        f"LoRA leaves out {', '.join(left)}, whose weights a model of type '{kind}' reads past an"
        " adapter."
    ]
    for name in left:
        with pytest.raises(
            LabError, match=f"names '{name}', whose weights .* reads past an adapter"
        ):
            policy(folder, lora_targets=name)


@pytest.mark.parametrize(
    "kind, layers",
    [
        ("gpt_oss", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("phimoe", {"q_proj", "k_proj", "v_proj", "o_proj"}),
    ],
)
def test_experts_that_peft_has_no_lora_for_are_named_and_routers_stay_routers(
    tmp_path, kind, layers
):
    model = policy(save(tmp_path, kind))
    assert adapted(model) == layers
    assert lora_notes(model) == [
        "LoRA adapts k_proj, o_proj, q_proj, v_proj of this model and leaves its experts as they"
        f" are: peft has none for experts of type '{kind}'."
    ]


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_nothing_is_said_where_the_experts_are_adapted_too(tmp_path, kind):
    model = policy(save(tmp_path, kind))
    assert lora_notes(model) == [] and any(
        "experts" in name and "lora_B" in name for name, _ in model.named_parameters()
    )


def test_a_plain_model_cannot_be_made_where_layers_with_own_adapters_share_a_weight(tmp_path):
    folder = create(
        tmp_path / "run",
        make_config("dpo", {"model": save(tmp_path / "model", "zamba2"), "device": "cpu"}),
    )
    policy(folder.config.model).save_pretrained(folder.path / "adapter")
    with pytest.raises(LabError, match="share weights, each with an adapter of its own"):
        merge(folder, tmp_path / "merged")
