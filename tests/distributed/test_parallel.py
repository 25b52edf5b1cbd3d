"""Two processes on the CPU that train one run together give the records of one process; a process
that is lost ends the run clearly.
"""

import copy
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from torch.utils._python_dispatch import TorchDispatchMode

from lab.cli.main import main
from lab.config.json_format import from_dict
from lab.config.methods import make_config
from lab.data.encoding import prompt_ids
from lab.distributed import collectives, fsdp
from lab.distributed.fsdp import bytes_here
from lab.engine.sampler import sample
from lab.errors import LabError
from lab.models.loading import load_base, load_policy
from lab.models.tokenizer import load_tokenizer
from lab.runs.control import Control
from lab.runs.folder import RunFolder
from lab.runs.records import StepRecord
from lab.training.checkpoints import make_checkpoint
from lab.training.loop import prepare, train
from lab.training.rollout import CHECKPOINT_KEYS, Rollout, load_rollout

ROOT = Path(__file__).parents[2]
SHARED = {"device": "cpu", "steps": 3, "eval_every": 0, "eval_prompts": 8, "batch_size": 16}
RUNS = {
    "dpo": {"pairs": 64, "micro_batches": 2},
    "kto": {"pairs": 64},
    "grpo": {
        "group_size": 2,
        "advantage_scaling": "batch",
        "max_completion_tokens": 24,
        "beta": 0.04,
        "updates_per_rollout": 2,
    },
    "ppo": {"max_completion_tokens": 24, "kl_target": 1.0, "minibatches": 3},
    "dpo, sharded": {"pairs": 64, "micro_batches": 2, "gradient_checkpointing": True},
    "grpo, sharded": {"group_size": 4, "max_completion_tokens": 48},
    # In some updates one process has fewer rows or pairs than micro-batches, or none.
    "ppo, sharded": {"max_completion_tokens": 24, "minibatches": 8, "micro_batches": 2},
    "online_dpo, sharded": {"max_completion_tokens": 24, "group_size": 4, "micro_batches": 3},
}
LONG = [
    "train",
    "dpo",
    "--steps",
    "100000",
    "--eval-every",
    "0",
    "--eval-prompts",
    "2",
    "--checkpoint-every",
    "1",
    "--device",
    "cpu",
    "--pairs",
    "64",
]
SCRIPT = """
import json, os, sys, torch
from lab.distributed import collectives
from lab.cli.main import main
sys.path[:0] = ["tests", "tests/distributed"]
from lab.config.methods import make_config
from lab.models.loading import load_policy
from lab.distributed.fsdp import bytes_here
from test_parallel import LONG, RUNS, gathers_of_sampling, steered
with collectives.process_group():
    for name in RUNS:
        rows, held = steered(name)
        if collectives.rank() == 0:
            torch.save(held, f"{sys.argv[1]}/{name}.pt")
            with open(f"{sys.argv[1]}/{name}.json", "w") as file:
                json.dump(rows, file)
    with open(f"{sys.argv[1]}/bytes{collectives.rank()}", "w") as file:
        file.write(str(bytes_here(load_policy(make_config("dpo", {"shard": True}), torch.device("cpu")))))
    with open(f"{sys.argv[1]}/gathers{collectives.rank()}", "w") as file:
        json.dump(gathers_of_sampling(), file)
os.environ["MASTER_PORT"] = sys.argv[2]  # Whoever comes first would meet the other at the old place.
main([*LONG, "--out", f"{sys.argv[1]}/run"])
"""


def steered(name):
    """Metrics and tokens of every update of a run whose learning rate is changed after its first,
    and its checkpoint after the second.
    """
    shard = {"shard": True} if "sharded" in name and collectives.world_size() > 1 else {}
    run, control = prepare(make_config(name.split(",")[0], SHARED | RUNS[name] | shard)), Control()
    rows, held = [], None
    for record in train(run, control):
        if isinstance(record, StepRecord):
            rows.append(record.metrics | {"tokens": record.tokens, "generated": record.generated})
            if record.step == 1 and collectives.rank() == 0:
                control.set("learning_rate", 1e-3)
            if record.step == 2:
                held = copy.deepcopy(make_checkpoint(run))
    return rows, held


class Gathers(TorchDispatchMode):
    """Counts how often FSDP gathers the weights of a layer."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "all_gather_copy_in" in str(func)
        return func(*args, **(kwargs or {}))


def gathers_of_sampling():
    """How often weights are gathered while completions of 2 and of 12 tokens are sampled from a sharded
    model, where they fit as a whole and where they do not; with the completions, and the bytes that are
    held after it.
    """
    model = load_policy(make_config("dpo", {"shard": True}), torch.device("cpu"))
    tokenizer, before, found = load_tokenizer("embedded"), bytes_here(model), {}
    for share in (fsdp.WHOLE_LAYERS_SHARE, 0.0):
        fsdp.WHOLE_LAYERS_SHARE = share
        for length in (2, 12):
            with Gathers() as gathers:
                completions = sample(
                    model,
                    tokenizer,
                    prompt_ids(tokenizer, ["7+5*3=", "9-4="]),
                    2,
                    max_tokens=length,
                    temperature=1.0,
                    seed=0,
                    step=0,
                    device=torch.device("cpu"),
                )
            ids = completions.ids.tolist()
            found[f"{share} {length}"] = [gathers.count, ids, bytes_here(model)]
    return {"before": before, "found": list(found.values())}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def launched(*arguments):
    """Two processes of one run, as torchrun would start them, that run Python with these arguments."""
    shared = os.environ | {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }
    return [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", *arguments],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=shared | {"RANK": str(i), "LOCAL_RANK": str(i)},
        )
        for i in range(2)
    ]


def one_killed(processes, which, folder):
    """Exit codes and output of both processes, of which one is killed as soon as their run in
    `folder` has a checkpoint.
    """
    try:
        until = time.monotonic() + 150
        while (
            not (folder / "checkpoint" / "state.pt").is_file()
            and all(p.poll() is None for p in processes)
            and time.monotonic() < until
        ):
            time.sleep(0.05)
        processes[which].kill()
        said = [p.communicate(timeout=60)[0] for p in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [p.returncode for p in processes], said


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes left behind that trained each of `RUNS`, then began a long run through the
    command line, in which the second was killed.
    """
    folder = tmp_path_factory.mktemp("two")
    codes, said = one_killed(launched("-c", SCRIPT, str(folder), free_port()), 1, folder / "run")
    return SimpleNamespace(folder=folder, code=codes[0], said=said[0], other=said[1])


@pytest.fixture(scope="module")
def alone():
    return {method: steered(method)[0] for method in RUNS}


@pytest.mark.parametrize("method", RUNS)
def test_two_processes_with_half_the_batch_each_give_the_records_of_one(method, two, alone):
    both = json.loads((two.folder / f"{method}.json").read_text())
    for step, (one, other) in enumerate(zip(alone[method], both, strict=True)):
        if (
            step == 1
        ):  # Policy and reference are equal but for rounding, which alone decides who is ahead.
            one, other = (
                {n: v for n, v in row.items() if n != "rewards/accuracies"} for row in (one, other)
            )
        assert other == pytest.approx(one, rel=1e-4, abs=1e-5), f"step {step}"


@pytest.mark.parametrize("method", RUNS)
def test_a_checkpoint_of_two_processes_goes_on_in_one(method, two, alone):
    held = torch.load(two.folder / f"{method}.pt", weights_only=True)
    rest = [
        record.metrics
        for record in train(prepare(from_dict(held["config"] | {"shard": False}), held))
        if isinstance(record, StepRecord)
    ]
    assert rest == [
        pytest.approx(
            {n: v for n, v in alone[method][3].items() if n not in ("tokens", "generated")},
            rel=1e-4,
            abs=1e-5,
        )
    ]


def test_a_killed_process_ends_the_run_as_failed_and_the_run_can_go_on_without_it(two, capsys):
    run = RunFolder(two.folder / "run")
    assert two.code == 2 and run.state == "failed", two.said
    assert (
        "of the 2 that train this run has ended" in run.status()["message"]
        and "--resume" in run.status()["message"]
    )
    assert "step 0/100000" in two.said and not two.other
    done = torch.load(run.path / "checkpoint" / "state.pt", weights_only=True)["step"]
    main(["train", "--resume", "--out", str(run.path), "--steps", str(done + 1)])
    assert run.state == "finished" and f"after {done + 1} updates" in capsys.readouterr().out


def test_a_sharded_run_whose_main_process_is_killed_counts_as_interrupted_and_goes_on_in_two_new_ones(
    tmp_path,
):
    run = RunFolder(tmp_path / "run")
    codes, said = one_killed(
        launched("-m", "lab", *LONG, "--shard", "--out", str(run.path)), 0, run.path
    )
    assert codes[1] == 2, said[1]
    assert "of the 2 that train this run has ended" in said[1]
    assert "Traceback" not in said[1], said[1]
    assert run.state == "interrupted"
    done = torch.load(run.path / "checkpoint" / "state.pt", weights_only=True)["step"]
    for process in launched(
        "-m", "lab", "train", "--resume", "--out", str(run.path), "--steps", str(done + 1)
    ):
        assert (process.communicate(timeout=60), process.returncode)[1] == 0
    assert run.state == "finished" and PeftModel.from_pretrained(
        load_base("embedded", torch.device("cpu")), run.path / "adapter"
    )


def test_an_error_ends_one_of_two_processes_before_the_interpreters_end_can_abort_it():
    script = (
        "import atexit, os; from lab.cli.main import main; atexit.register(os.abort);"
        " main(['train', 'dpo', '--beta', '-1'])"
    )
    for process in launched("-c", script):
        said = process.communicate(timeout=60)[0]
        assert process.returncode == 2 and "beta is -1" in said, said


def test_each_of_two_processes_holds_about_half_of_a_sharded_base(two):
    whole = bytes_here(load_policy(make_config("dpo", {}), torch.device("cpu")))
    adapter = sum(
        w.numel() * w.element_size()
        for w in load_policy(make_config("dpo", {}), torch.device("cpu")).parameters()
        if w.requires_grad
    )
    for rank in range(2):
        here = int((two.folder / f"bytes{rank}").read_text())
        assert here - adapter == pytest.approx((whole - adapter) / 2, rel=0.01)


def test_a_step_of_decoding_gathers_no_weights_where_they_fit_as_a_whole(two):
    for rank in range(2):
        told = json.loads((two.folder / f"gathers{rank}").read_text())
        (short, _, _), (long, ids, here), (apart, _, _), (longer, same, _) = told["found"]
        assert short == long > 0 and longer > apart + 9 * short // 2
        assert ids == same and here == told["before"]


@pytest.mark.parametrize(
    "method, knobs, processes, says",
    [
        ("dpo", {}, 1, "one process.*torchrun --nproc-per-node 2 -m lab train dpo --shard"),
        (
            "ppo",
            {"model_layout": "separate"},
            2,
            "separate.*would not be shared.*--model-layout shared",
        ),
        ("dpo", {"quantization": "4bit"}, 2, "4 bits cannot be sharded"),
    ],
)
def test_a_run_that_cannot_be_sharded_is_refused(method, knobs, processes, says, monkeypatch):
    monkeypatch.setattr(collectives, "world_size", lambda: processes)
    with pytest.raises(LabError, match=says):
        prepare(make_config(method, {"shard": True, "device": "cpu"} | knobs))


@pytest.fixture
def third_of_three(monkeypatch):
    monkeypatch.setattr(collectives, "world_size", lambda: 3)
    monkeypatch.setattr(collectives, "rank", lambda: 2)


def test_a_batch_is_shared_in_order_and_one_that_cannot_be_is_refused(third_of_three):
    assert collectives.shard_for_rank([1, 2, 3, 4, 5, 6], "pairs") == [5, 6]
    with pytest.raises(
        LabError, match="batch of 16 pairs cannot be shared equally by 3 processes.*multiple of 3"
    ):
        collectives.shard_for_rank(list(range(16)), "pairs")


def test_rows_of_the_whole_batch_are_found_where_they_lie(third_of_three):
    assert collectives.local_rows([0, 4, 5, 8, 11], 4) == [0, 3]
    whole = torch.arange(12.0).reshape(6, 2)
    assert collectives.local_shard(whole, torch.zeros(2, 1)).tolist() == [[8.0], [10.0]]


def test_a_rollout_is_taken_apart_by_rows_and_prompts(third_of_three):
    rows = torch.arange(6)
    whole = Rollout(
        ids=rows.reshape(6, 1),
        completion_mask=rows.reshape(6, 1) > 0,
        truncated=rows > 0,
        rewards=rows.float(),
        gold=None,
        group_size=2,
        prompts=["a", "b", "c"],
        texts=list("uvwxyz"),
        extra_metrics={"kl": rows.float(), "kl_coefficient": torch.tensor(0.5)},
        num_updates=1,
    )
    saved = {CHECKPOINT_KEYS.get(name, name): value for name, value in vars(whole).items()}
    part = load_rollout(saved, torch.device("cpu"))
    assert (
        part.rewards.tolist() == [4.0, 5.0]
        and part.prompts == ["c"]
        and part.texts == ["y", "z"]
        and part.num_updates == 1
    )
    assert (
        part.extra_metrics["kl"].tolist() == [4.0, 5.0]
        and part.extra_metrics["kl_coefficient"] == 0.5
    )


def test_a_process_alone_on_the_second_machine_takes_the_first_gpu_there(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert collectives.env_rank() == 1 and collectives.local_rank() == 0


def test_alone_nothing_is_shared_and_nothing_is_waited_for():
    values = torch.ones(3)
    assert (
        collectives.all_gather(values) is values
        and collectives.shard_for_rank([1, 2, 3], "pairs") == [1, 2, 3]
        and collectives.all_reduce_sum_int(4) == 4
    )
    assert (
        collectives.broadcast_object(lambda: 5) == 5
        and collectives.rank() == 0
        and collectives.world_size() == 1
    )


def test_a_rollout_out_of_a_checkpoint_lies_on_the_device_of_its_run():
    rows = torch.arange(4)
    state = Rollout(
        ids=rows.reshape(4, 1),
        completion_mask=rows.reshape(4, 1) > 0,
        truncated=rows > 0,
        rewards=rows.float(),
        gold=None,
        group_size=2,
        prompts=["a", "b"],
        texts=list("wxyz"),
        extra_metrics={"ties": rows > 2},
    ).to_checkpoint()
    there = load_rollout(
        state, torch.device("meta")
    )  # Any device that is not the one where a checkpoint is read.
    assert {
        t.device.type
        for t in (
            there.ids,
            there.completion_mask,
            there.truncated,
            there.rewards,
            there.extra_metrics["ties"],
        )
    } == {"meta"}
    assert (there.group_size, there.prompts, there.texts, there.gold) == (
        2,
        ["a", "b"],
        list("wxyz"),
        None,
    )
