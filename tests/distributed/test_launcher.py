"""The config of `accelerate launch`: what the lab takes over, what it notes and what it refuses. The
environment is what accelerate itself makes of its options.
"""

import pytest
from accelerate.commands.launch import launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from lab.config.methods import make_config
from lab.distributed.launcher import launcher_notes, require_launched, with_launcher_settings
from lab.errors import LabError

FSDP = ["--use_fsdp", "--fsdp_version", "2"]
DEEPSPEED = ["--use_deepspeed", "--zero_stage"]


def environment(*options, precision="no"):
    """The variables that `accelerate launch` sets for these options."""
    shared = ["--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"]
    args = launch_command_parser().parse_args(
        [*shared, "--mixed_precision", precision, "--dynamo_backend", "no", *options, "train.py"]
    )
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ""
        return prepare_deepspeed_cmd_env(args)[1]
    return prepare_multi_gpu_env(args)


def launched(*options, method="dpo", **more):
    config = make_config(method)
    changed = with_launcher_settings(config, environment(*options, **more))
    return {name: value for name, value in vars(changed).items() if value != getattr(config, name)}


@pytest.mark.parametrize(
    "options, expected",
    [
        (["--multi_gpu"], {}),
        (FSDP, {"shard": True}),
        ([*FSDP, "--fsdp_reshard_after_forward", "false"], {"shard": True}),
        (["--use_fsdp", "--fsdp_sharding_strategy", "FULL_SHARD"], {"shard": True}),
        (["--use_fsdp", "--fsdp_sharding_strategy", "NO_SHARD"], {}),
        (
            [*FSDP, "--fsdp_activation_checkpointing", "true"],
            {"shard": True, "gradient_checkpointing": True},
        ),
        ([*DEEPSPEED, "3"], {"shard": True}),
        ([*DEEPSPEED, "2"], {}),
        ([*DEEPSPEED, "0", "--gradient_clipping", "1.0"], {}),
    ],
)
def test_what_accelerate_asks_for_becomes_settings_of_the_run(options, expected):
    assert launched(*options) == expected


@pytest.mark.parametrize(
    "options, says",
    [
        ([*FSDP, "--fsdp_offload_params", "true"], "fsdp_offload_params, but the lab offloads"),
        (["--use_fsdp", "--fsdp_sharding_strategy", "HYBRID_SHARD"], "HYBRID_SHARD, but the lab"),
        ([*DEEPSPEED, "3", "--offload_param_device", "cpu"], "offload_param_device cpu"),
        ([*DEEPSPEED, "3", "--offload_optimizer_device", "nvme"], "offload_optimizer_device nvme"),
        ([*DEEPSPEED, "2", "--gradient_accumulation_steps", "4"], "steps 4.*--micro-batches"),
        ([*DEEPSPEED, "2", "--gradient_clipping", "0.5"], "--max-grad-norm 0.5"),
        ([*DEEPSPEED, "2", "--deepspeed_config_file", "ds.json"], "deepspeed_config_file ds.json"),
        (["--use_megatron_lm"], "use_megatron_lm"),
    ],
)
def test_what_the_lab_cannot_do_is_refused_in_words(options, says):
    with pytest.raises(LabError, match=f"accelerate's config has .*{says}"):
        launched(*options)


@pytest.mark.parametrize("precision", ["fp16", "no", "bf16"])
def test_only_a_precision_that_the_lab_lacks_is_refused(precision):
    if precision == "fp16":
        with pytest.raises(LabError, match="mixed_precision fp16.*torchrun"):
            launched("--multi_gpu", precision=precision)
    else:
        assert launched("--multi_gpu", precision=precision) == {}


def test_a_run_that_resumes_without_the_shards_of_the_config_is_refused():
    config = make_config("dpo")
    require_launched(config, environment("--multi_gpu"))
    with pytest.raises(LabError, match="asks for shard, but this run has shard off"):
        require_launched(config, environment(*FSDP))
    require_launched(with_launcher_settings(config, environment(*FSDP)), environment(*FSDP))


def test_notes_name_what_has_no_effect():
    assert launcher_notes({}) == launcher_notes(environment("--multi_gpu")) == []
    (note,) = launcher_notes(environment(*FSDP, "--fsdp_state_dict_type", "FULL_STATE_DICT"))
    assert "FSDP_STATE_DICT_TYPE" in note and "--shard" in note
    (note,) = launcher_notes(environment(*DEEPSPEED, "2"))
    assert "ZeRO stage 2" in note and "without shards" in note
    (note,) = launcher_notes(environment("--multi_gpu") | {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"})
    assert "INDUCTOR has no effect" in note
