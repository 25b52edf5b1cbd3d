"""Peers in an environment of their own, tested with a stand-in: an interpreter that has a package named
unsloth or vllm, and the versions of TRL and datasets that a test asks for.
"""

import json
import sys

import psutil
import pytest
import torch
from trl import GRPOConfig

from lab.benchmarks import run, sides, trl_settings, turns, workload
from lab.benchmarks.foreign_process import ForeignProcess
from lab.benchmarks.plans import PLANS, Piece, Request
from lab.benchmarks.side_process import InProcess, Turn
from lab.errors import LabError

CPU = torch.device("cpu")
UNSLOTH = """
import json, os, sys
from pathlib import Path
assert not {"trl", "peft", "transformers"} & set(sys.modules), "imported too late"
print("a banner on standard output")
CALLS = Path(__file__).parents[1] / "calls.jsonl"
def told(name, **given):
    with CALLS.open("a") as calls:
        print(json.dumps({"call": name, **given}), file=calls)
class FastLanguageModel:
    @staticmethod
    def from_pretrained(model_name, max_seq_length, dtype, load_in_4bit, use_gradient_checkpointing):
        from transformers import AutoModelForCausalLM, AutoTokenizer
        told("from_pretrained", checkpointing=use_gradient_checkpointing, four_bit=load_in_4bit)
        model = AutoModelForCausalLM.from_pretrained(model_name, dtype=dtype)
        return model, AutoTokenizer.from_pretrained(model_name)
    @staticmethod
    def get_peft_model(model, target_modules, use_gradient_checkpointing, random_state, **lora):
        import trl.trainer.utils
        from peft import LoraConfig, get_peft_model
        from transformers import TrainerCallback
        told("get_peft_model", checkpointing=use_gradient_checkpointing, **lora)
        return get_peft_model(
            model, LoraConfig(target_modules=target_modules, task_type="CAUSAL_LM", **lora)
        )
import transformers
class Watching(transformers.TrainerCallback):
    def on_train_begin(self, args, *rest, **named):
        told("train", accumulation=args.gradient_accumulation_steps, optimizer=str(args.optim.value),
             saving=args.gradient_checkpointing, graphs=os.environ.get("UNSLOTH_BLOCK_CUDAGRAPHS"))
    def on_step_begin(self, *rest, **named):
        told("step")
begin = transformers.Trainer.__init__
def watched(self, *rest, **named):
    begin(self, *rest, **named)
    self.add_callback(Watching())
transformers.Trainer.__init__ = watched
"""
VLLM = """
import json
from pathlib import Path
from types import SimpleNamespace
CALLS = Path(__file__).parents[1] / "calls.jsonl"
class SamplingParams(SimpleNamespace):
    pass
class LLM:
    def __init__(self, model, **given):
        with CALLS.open("a") as calls:
            print(json.dumps({"call": "LLM", **given}), file=calls)
    def generate(self, prompts, sampling, use_tqdm):
        with CALLS.open("a") as calls:
            print(json.dumps({"call": "generate", **vars(sampling)}), file=calls)
        text = SimpleNamespace(token_ids=[3] * sampling.max_tokens)
        return [SimpleNamespace(outputs=[text] * sampling.n) for _ in prompts]
"""


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(turns, "SLOW_STEP_SECONDS", 0.0)
    monkeypatch.setattr(workload, "BENCH_PAIRS", 2)
    monkeypatch.setattr(workload, "CHAIN_SAMPLING", {"grpo": (2, 2, 6), "decode": (2, 3, 6)})
    # The same turns of the lab without the seconds that a process takes to start.
    monkeypatch.setattr(sides, "SeparateProcess", InProcess)
    monkeypatch.setattr(run, "device_limits", lambda where: {"flops": 1e10, "bandwidth": 1e10})


@pytest.fixture
def stand_in(tmp_path):
    """Makes an interpreter that has a stand-in for a package, and says that it has given versions."""
    if sys.platform == "win32":
        pytest.skip("the stand-in is a shell script")

    def make(package, **versions):
        folder = tmp_path / "environment"
        (folder / package).mkdir(parents=True)
        text = {"unsloth": UNSLOTH, "vllm": VLLM}[package]
        (folder / package / "__init__.py").write_text(text)
        for name, version in ({package: "2026.1"} | versions).items():
            info = folder / f"{name}-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        return str(python)

    return make


def calls_of(tmp_path):
    lines = (tmp_path / "environment" / "calls.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def measure_peer(work, peer, python, **asked):
    table = run.run_benchmark(
        Request((work,), peer=peer, peer_python=python, **asked), rounds=1, device="cpu"
    )
    return table, [row for row in table["rows"] if row["side"] == peer]


@pytest.mark.parametrize("work", ["dpo", "grpo"])
def test_unsloth_gets_every_setting_that_its_defaults_would_change(stand_in, tmp_path, work):
    python = stand_in("unsloth", trl="1.15.0", datasets="4.8.0")
    table, (row,) = measure_peer(work, "unsloth", python, settings=("checkpointing",))
    assert row["error"] is None and row["checkpointing"] and row["seconds"] > 0
    own = next(row for row in table["rows"] if row["side"] == "lab")
    assert work == "grpo" or row["tokens"] == own["tokens"] > 0
    assert "unsloth 2026.1, trl 1.15.0" in table["peer"]
    loaded, adapted, trained, *steps = calls_of(tmp_path)
    assert loaded == {"call": "from_pretrained", "checkpointing": "unsloth", "four_bit": False}
    assert adapted["checkpointing"] == "unsloth" and adapted["r"] == 16
    assert trained["accumulation"] == 1 and trained["optimizer"] == "adamw_torch"
    assert trained["saving"] and trained["graphs"] is None
    # Two untimed turns of one step and one timed turn, after three steps of warm-up.
    assert len(steps) >= 3 + 3
    assert str(tmp_path) not in table["command"] and "--peer-python PATH" in table["command"]


def test_unsloth_without_checkpointing_turns_it_off_in_both_calls(stand_in, tmp_path):
    python = stand_in("unsloth", trl="1.15.0", datasets="4.8.0")
    setting = "no checkpointing, CUDA graphs"
    _, (row,) = measure_peer("dpo", "unsloth", python, settings=(setting,))
    assert row["error"] is None and not row["checkpointing"] and row["setting"] == setting
    loaded, adapted, trained, *_ = calls_of(tmp_path)
    assert loaded["checkpointing"] is adapted["checkpointing"] is trained["saving"] is False
    assert trained["graphs"] == "1"


@pytest.mark.parametrize(
    "versions, message",
    [
        ({"trl": "1.16.0", "datasets": "4.8.0"}, "trl is 1.16.0, but Unsloth takes at most 1.15"),
        ({"trl": "1.15.2", "datasets": "5.0.0"}, "datasets is 5.0.0, but Unsloth takes at most 4"),
    ],
)
def test_versions_with_which_unsloth_does_not_work_are_named(stand_in, versions, message):
    _, rows = measure_peer(
        "dpo", "unsloth", stand_in("unsloth", **versions), settings=("checkpointing",)
    )
    assert [message in row["error"] for row in rows] == [True]


def test_vllm_samples_equally_many_tokens_from_prompts_that_it_does_not_remember(
    stand_in, tmp_path
):
    table, (row,) = measure_peer("decode", "vllm", stand_in("vllm"))
    assert row["error"] is None and row["tokens"] == 2 * 3 * 6
    assert "vllm 2026.1" in table["peer"] and row["memory"] is None
    engine, first, *_ = calls_of(tmp_path)
    assert engine["enable_prefix_caching"] is False and engine["dtype"] == "float32"
    assert (first["n"], first["temperature"], first["max_tokens"]) == (3, 1.0, 6)


@pytest.mark.parametrize("peer, work", [("vllm", "decode"), ("unsloth", "dpo")])
def test_a_peer_loads_its_model_only_when_its_first_turn_begins(stand_in, tmp_path, peer, work):
    versions = {"trl": "1.15.0", "datasets": "4.8.0"} if peer == "unsloth" else {}
    python = stand_in(peer, **versions)
    (made,) = workload.make_works([work], "embedded", tmp_path / "model", CPU)
    process = ForeignProcess(python, made, peer, {}, CPU)
    assert peer in process.wait_until_ready()
    process.close()
    process.join()
    assert not (tmp_path / "environment" / "calls.jsonl").exists()


def test_the_processes_that_a_peer_started_end_with_it(stand_in, tmp_path):
    python = stand_in("vllm")
    engine = tmp_path / "environment" / "vllm" / "__init__.py"
    engine.write_text(
        VLLM
        + """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
CALLS.with_name("child").write_text(str(child.pid))
"""
    )
    (made,) = workload.make_works(["decode"], "embedded", tmp_path / "model", CPU)
    process = ForeignProcess(python, made, "vllm", {}, CPU)
    process.wait_until_ready()
    child = psutil.Process(int((tmp_path / "environment" / "child").read_text()))
    assert child.is_running()
    process.close()
    process.join()
    try:
        child.wait(60)
    except psutil.TimeoutExpired:
        assert child.status() == psutil.STATUS_ZOMBIE, "it runs on and keeps the GPU's memory"


@pytest.mark.parametrize("peer, work", [("vllm", "dpo"), ("unsloth", "kto"), ("unsloth", "decode")])
def test_a_peer_measures_the_works_that_it_does_and_no_others(peer, work, tmp_path):
    piece = Piece((work,), "embedded", "both", peer, peer_python=sys.executable)
    (made,) = workload.make_works([work], "embedded", tmp_path, CPU)
    assert sides.peer_sides(made, piece, CPU) == []


def test_an_interpreter_without_the_peer_is_an_error_of_its_side():
    _, rows = measure_peer("decode", "vllm", sys.executable)
    assert rows[0]["error"] == "ModuleNotFoundError: No module named 'vllm'"


@pytest.mark.parametrize(
    "piece, message",
    [
        (Piece(("dpo",), "1m", peer="unsloth"), "--peer unsloth needs --peer-python"),
        (Piece(("dpo",), "1m", peer="trl", peer_python="p"), "only the peers unsloth and vllm"),
        (Piece(("dpo",), "1m", peer="trl", settings=("fast",)), "fused kernels"),
        (Piece(("dpo",), "1m", checkpointing="sometimes"), "both"),
    ],
)
def test_what_a_peer_lacks_is_said(piece, message):
    with pytest.raises(LabError, match=message):
        piece.require_known()


def test_every_piece_of_a_plan_is_known_and_the_largest_model_comes_first():
    for pieces in PLANS.values():
        for piece in pieces:
            piece.require_known()
    assert [piece.size for piece in PLANS["gpu"][:3]] == ["8b", "1.2b", "135m"]
    assert not any(piece.peer for piece in PLANS["gpu"][:3])


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
def test_trl_takes_the_settings_with_vllm_and_they_are_skipped_without_it(tmp_path):
    knobs = trl_settings.TRL_SETTINGS["grpo"]["vLLM"]
    config = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **knobs)
    assert config.use_vllm and config.vllm_mode == "colocate"
    assert trl_settings.unavailable(knobs) == "skipped: vLLM is not installed"


def test_trl_tries_the_reference_precomputed_with_fused_kernels_with_and_without_checkpointing():
    both = {"precompute_ref_log_probs", "use_liger_kernel"}
    dpo = trl_settings.TRL_SETTINGS["dpo"].values()
    found = {knobs.get("gradient_checkpointing", True) for knobs in dpo if both <= set(knobs)}
    assert found == {True, False}


class Told:
    """A player that writes down when it starts, takes a turn and ends."""

    def __init__(self, events, name):
        self.events, self.name = events, name
        events.append(f"start {name}")

    def wait_until_ready(self):
        self.events.append(f"ready {self.name}")
        return ""

    def take(self, lead, repeat):
        self.events.append(f"turn {self.name}")
        return Turn([1.0] * repeat, [[1]] * repeat)

    def close(self):
        self.events.append(f"end {self.name}")

    def join(self):
        pass


@pytest.mark.parametrize("apart", [True, False])
def test_one_at_a_time_a_side_ends_before_the_next_one_begins(apart, monkeypatch):
    monkeypatch.setattr(sides.os, "cpu_count", lambda: 2)
    events = []
    three = [
        turns.Side(name, "", open=lambda name=name: Told(events, name)) for name in ("a", "b", "c")
    ]
    assert [side.name for side in sides.measured(three, 2, apart)] == ["a", "b", "c"]
    short = [event for i, event in enumerate(events) if not i or event != events[i - 1]]
    assert short == (
        ["start a", "start b", "ready a", "ready b", "turn a", "end a", "turn b", "end b"]
        + ["start c", "ready c", "turn c", "end c"]
        if apart
        else ["start a", "start b", "start c", "ready a", "ready b", "ready c"]
        + ["turn a", "turn b", "turn c"] * (len(short) // 3 - 3)
        + ["end a", "end b", "end c"]
    )
    assert all(len(side.times) == 2 for side in three)


def test_the_same_command_measures_only_what_the_record_lacks(tmp_path, monkeypatch):
    out = tmp_path / "bench.json"
    first = run.run_benchmark(Request(("decode",)), 1, "cpu", out=out)
    monkeypatch.setattr(run, "measured", lambda sides, *_: pytest.fail("measured") if sides else ())
    assert run.run_benchmark(Request(("decode",)), 1, "cpu", out=out) == first
    assert json.loads(out.read_text()) == first
    with pytest.raises(LabError, match="rounds '1', and this is '2'. Give another --out"):
        run.run_benchmark(Request(("decode",)), 2, "cpu", out=out)
