"""The blocks on speed, made from records that a test writes."""

import json

import pytest
from docs_blocks import speed

from lab.analysis import recorded_results

MACHINE = {"device": "NVIDIA H200", "torch": "2.11.0", "transformers": "5.17.0"}


def row(work, side, setting, checkpointing, seconds, **more):
    return {
        "work": work,
        "size": "8b",
        "side": side,
        "setting": setting,
        "checkpointing": checkpointing,
        "error": None,
        "seconds": seconds,
        "low": seconds,
        "high": seconds,
        "tokens": 1000,
        "tokens_per_second": 1000 / seconds,
        "memory": 20 * 2**30,
        "limit": seconds / 2,
        "share": 0.5,
    } | more


@pytest.fixture
def records(tmp_path, monkeypatch):
    """Writes a record into an empty folder of records."""
    monkeypatch.setattr(speed, "RESULTS_FOLDER", tmp_path)
    monkeypatch.setattr(recorded_results, "RESULTS_FOLDER", tmp_path)

    def write(name, rows, **facts):
        table = {"command": "python -m lab bench", "rounds": 3, "peer": "trl 1.16.0", "rows": rows}
        text = json.dumps(MACHINE | table | {"processes": 1, "code": "abc"} | facts)
        (tmp_path / f"{name}.json").write_text(text, "utf-8")

    return write


def lines_of(text):
    return [line for line in text.splitlines() if line.startswith("| 8b")]


def test_memory_is_compared_between_sides_with_the_same_checkpointing(records):
    records(
        "bench-h200-speed",
        [
            row("dpo", "lab", "", False, 0.25, memory=30 * 2**30),
            row("dpo", "lab", "checkpointing", True, 0.375, memory=18 * 2**30),
            row("dpo", "trl", "default", True, 2.0, memory=19 * 2**30),
            row("dpo", "trl", "no checkpointing", False, 1.0, memory=60 * 2**30),
            row("dpo", "trl", "fused kernels", False, 0.5, memory=50 * 2**30),
            row("dpo", "trl", "fused", True, 0.75, memory=17 * 2**30),
            row("decode", "lab", "", False, 0.5, memory=16 * 2**30),
        ],
    )
    assert speed.gpu_records() == ("bench-h200-speed",)
    off, on, decoding = lines_of(speed.speed_table(speed.gpu_records()))
    assert "| off | 0.250" in off and "fused kernels | 2.0 × | 30.0 / 50.0 |" in off
    assert "| on | 0.375" in on and "fused | 2.0 × | 18.0 / 17.0 |" in on
    assert "| decoding | – | 0.500" in decoding and "16.0 / –" in decoding
    assert "code abc" in speed.speed_table(speed.gpu_records())


def test_records_of_two_machines_are_not_mixed(records):
    records("bench-h200-a", [row("dpo", "lab", "", False, 0.25)])
    records("bench-h200-b", [row("dpo", "lab", "", False, 0.25)], torch="2.12.0")
    with pytest.raises(ValueError, match="several values of torch"):
        speed.speed_table(speed.gpu_records())


def test_the_sentence_on_vllm_stands_until_there_is_a_number(records):
    records("bench-h200-speed", [row("dpo", "lab", "", False, 0.25)])
    assert "Unsloth: no number" in speed.peers() and "TRL plus vLLM" in speed.peers()
    records(
        "bench-h200-vllm",
        [row("decode", "lab", "", False, 0.5), row("decode", "vllm", "default", False, 0.25)],
    )
    (line,) = lines_of(speed.peers())
    assert "vLLM, default | 0.250 (0.250 to 0.250) |" in line and "0.500 (0.500" in line
    assert "TRL plus vLLM" not in speed.peers() and "Unsloth: no number" in speed.peers()


def test_the_numbers_of_several_gpus_stand_by_the_number_of_processes(records):
    for count, seconds in ((2, 0.5), (1, 0.25)):
        rate = count * 1000 / seconds
        records(
            f"bench-h200-scaling-{count}",
            [row("dpo", "lab", "", False, seconds, tokens_per_second=rate)],
            processes=count,
        )
    assert [line.split(" | ")[-1] for line in lines_of(speed.scaling())] == ["100 % |", "50 % |"]
    assert "torchrun --nproc-per-node 2 -m lab bench" in speed.scaling()
    assert speed.gpu_records() == ()


def test_a_setting_without_a_number_is_told_with_its_reason(records, monkeypatch):
    monkeypatch.setattr(speed, "H100_RECORDS", ())
    records("bench-h200-speed", [row("dpo", "trl", "fused kernels", False, 1.0, error="no room")])
    assert "fused kernels | no room |" in speed.failed_settings()
