"""The benchmark: equal work, honest counts, ratios that repeat; and the fast path against the plain
one. No absolute time is tested.
"""

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psutil
import pytest
import torch
from support.steps import killed, met, told
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lab.benchmarks import amounts, device_limits, report, run, sides, trl_settings, turns, workload
from lab.benchmarks.plans import PLANS, Request
from lab.benchmarks.side_process import InProcess, SeparateProcess
from lab.cli.main import main
from lab.config import methods
from lab.data.batching import collate
from lab.data.token_rows import EncodedExample
from lab.engine.token_logprobs import reference_implementation, token_statistics
from lab.errors import LabError
from lab.experiments.costs import CPU_SHAPES, write_model
from lab.models.loading import load_policy

CPU = torch.device("cpu")
FIELDS = {
    "work",
    "size",
    "side",
    "setting",
    "checkpointing",
    "error",
    "seconds",
    "low",
    "high",
    "tokens",
    "tokens_per_second",
    "memory",
    "limit",
    "share",
}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(turns, "SLOW_STEP_SECONDS", 0.0)
    monkeypatch.setattr(workload, "BENCH_PAIRS", 4)
    monkeypatch.setattr(workload, "CHAIN_SAMPLING", {"grpo": (2, 2, 6), "decode": (2, 2, 6)})
    monkeypatch.setattr(
        sides, "SeparateProcess", InProcess
    )  # The same turns without the seconds that a process takes to start.
    monkeypatch.setattr(run, "device_limits", lambda where: {"flops": 1e10, "bandwidth": 1e10})


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_model(CPU_SHAPES["1m"], folder, CPU)
    return load_policy(
        methods.make_config(
            "dpo", {"model": str(folder), "lora_rank": workload.BENCH_LORA_RANK, "device": "cpu"}
        ),
        CPU,
    )


def test_both_sides_train_on_the_same_tokens_and_the_json_holds_every_number(tmp_path, capsys):
    main(
        [
            "bench",
            "--works",
            "dpo,kto,grpo,decode",
            "--peer",
            "trl",
            "--rounds",
            "1",
            "--device",
            "cpu",
            "--out",
            str(tmp_path / "bench.json"),
        ]
    )
    table = json.loads((tmp_path / "bench.json").read_text())
    assert {row["work"] for row in table["rows"] if row["side"] == "lab"} == {
        "dpo",
        "kto",
        "grpo",
        "decode",
    }
    assert all(
        set(row) == FIELDS and row["error"] is None and row["memory"] is None
        for row in table["rows"]
    )
    for work in ("dpo", "kto"):
        assert len({row["tokens"] for row in table["rows"] if row["work"] == work}) == 1
    for row in table["rows"]:
        assert row["low"] <= row["seconds"] <= row["high"] and row[
            "tokens_per_second"
        ] == pytest.approx(row["tokens"] / row["seconds"])
        assert row["share"] == pytest.approx(row["limit"] / row["seconds"])
    for own, default, best in report.rows_with_peer(table):
        assert default["setting"] == "default" and not best["checkpointing"]
        assert own["setting"] == "" and not own["checkpointing"]
    assert report.benchmark_table(table) in capsys.readouterr().out
    assert (
        table["command"].endswith("--peer trl --out bench.json") and table["peer"] == "trl 1.16.0"
    )


def test_a_setting_that_fails_is_a_row_with_its_error_and_the_others_go_on(monkeypatch):
    monkeypatch.setitem(
        trl_settings.TRL_SETTINGS,
        "dpo",
        {
            "default": {"max_grad_norm": "much"},
            "reference precomputed": trl_settings.REFERENCE_PRECOMPUTED,
        },
    )
    table = run.run_benchmark(Request(("dpo",), peer="trl"), 1, "cpu")
    own, failed, good, _ = table["rows"]
    assert failed["error"].startswith("TypeError") and good["seconds"] > 0 and own["seconds"] > 0
    assert f"dpo, TRL with default: {failed['error']}" in report.benchmark_table(table)


def test_each_side_has_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(sides, "SeparateProcess", SeparateProcess)
    monkeypatch.setattr(
        trl_settings,
        "settings_of",
        lambda work, where: {"reference precomputed": trl_settings.REFERENCE_PRECOMPUTED},
    )
    # Processes are spawned, so that this holds for the process of the test alone.
    monkeypatch.setattr(InProcess, "take", lambda *_: pytest.fail("A turn was taken here."))
    large = b"x" * 2**30
    own, theirs = run.run_benchmark(Request(("dpo",), peer="trl"), 1, "cpu")["rows"]
    here = psutil.Process().memory_info().rss
    assert len(large) < here and all(2**27 < row["memory"] < here for row in (own, theirs))
    assert (
        own["seconds"] > 0
        and own["tokens"] == theirs["tokens"]
        and theirs["seconds"] > 0
        and not theirs["error"]
    )


def test_a_process_that_waits_computes_nothing_and_ends_when_it_is_closed():
    side = SeparateProcess(told, CPU)
    first = side.take(0, 1)
    (pid,) = first.lengths[0]
    computed, ended = {0.0: [], 0.5: []}, first.times[0]
    for pause in (0.0, 0.5) * 3:
        time.sleep(pause)
        turn = side.take(1, 2)
        assert len(turn.times) == 2 and turn.lengths == [[pid], [pid]] and pid != os.getpid()
        computed[pause].append(turn.times[0] - ended)  # A turn ends with a garbage collection.
        ended = turn.times[1]
    assert min(computed[0.5]) - min(computed[0.0]) < 0.25
    side.close()
    side.join()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_dies_is_an_error_of_its_side():
    side = turns.Side("trl", "default", SeparateProcess(killed, CPU))
    turns.take_turn(side, 0, 1)
    assert side.times == [1.0] and not side.error
    turns.take_turn(side, 0, 1)
    turns.take_turn(side, 0, 1)
    side.player.close()
    side.player.join()
    assert side.times == [1.0] and side.error == f"ended with exit code {-signal.SIGKILL}"


def test_processes_start_side_by_side_however_much_a_side_is_given(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    sides = [SeparateProcess(partial(met, "." * 2**22, *paths), CPU) for paths in ((a, b), (b, a))]
    with ThreadPoolExecutor() as pool:
        turns_taken = list(pool.map(lambda side: side.take(0, 1).times, sides))
    assert turns_taken == [[2.0**22]] * 2
    for side in sides:
        side.close()
        side.join()


def failing():
    yield int("much\nmore")


def test_an_error_of_a_step_is_named_by_its_first_line():
    assert (
        InProcess(failing, CPU)
        .take(0, 1)
        .error.startswith("ValueError: invalid literal for int() with base 10: 'much")
    )


def test_a_side_that_trains_on_other_tokens_is_refused(tmp_path):
    (work,) = workload.make_works(["dpo"], "embedded", tmp_path, CPU)
    side = turns.Side("trl", "default", iter(()), times=[1.0], lengths=[[work.tokens - 1]])
    with pytest.raises(
        LabError, match=f"on {work.tokens - 1} tokens in dpo, but the work has {work.tokens}"
    ):
        run.row_of(work, side, {"flops": 1.0, "bandwidth": 1.0}, CPU)


def test_the_best_of_the_other_side_is_the_one_with_most_tokens_a_second():
    def row(side, setting, seconds, tokens, work="grpo"):
        return {
            "work": work,
            "size": "1m",
            "side": side,
            "setting": setting,
            "error": None,
            "seconds": seconds,
            "low": seconds,
            "high": seconds,
            "tokens": tokens,
            "tokens_per_second": tokens / seconds,
            "memory": 2**30,
            "limit": 0.1,
            "share": 0.1 / seconds,
        }

    table = {
        "rows": [
            row("lab", "", 1.0, 100),
            row("trl", "default", 2.0, 50),
            row("trl", "other", 3.0, 100),
            row("lab", "", 2.0, 9, "padding"),
            row("lab", "", 2.2, 9, "padding, longer"),
        ]
    }
    assert report.benchmark_table(table).splitlines()[2:] == [
        (
            "| 1m | GRPO | off | 1.000 s (1.000 to 1.000) | 2.000 s (2.000 to 2.000) | 3.000 s (3.000 to"
            " 3.000), other | 3.0 × | 1.00 / 1.00 GiB | 100 | 10.0 % |"
        ),
        "",
        (
            "- 1m, lab: one completion twice as long, the number of tokens the same: 1.10 times the"
            " time."
        ),
    ]


def test_efficiency_is_tokens_a_second_for_each_process_over_those_of_one_alone():
    def table(processes, seconds):
        return {
            "processes": processes,
            "rows": [
                {
                    "work": "dpo",
                    "size": "1m",
                    "seconds": seconds,
                    "low": seconds,
                    "high": seconds,
                    "tokens_per_second": 100 * processes / seconds,
                }
            ],
        }

    assert report.scaling_table([table(1, 1.0), table(2, 1.25)]).splitlines()[2:] == [
        "| 1m | DPO | 1 | 1.000 s (1.000 to 1.000) | 100 | 100 % |",
        "| 1m | DPO | 2 | 1.250 s (1.250 to 1.250) | 160 | 80 % |",
    ]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--works", "dpp"], "dpo"),
        (["--sizes", "136m"], "135m"),
        (["--peer", "verl"], "trl"),
        (["--rounds", "0"], "from 1 to"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_accepted(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(["bench", *arguments])
    assert message in capsys.readouterr().err


def test_longer_completions_have_the_same_number_of_tokens_and_the_longest_is_twice_as_long():
    even, odd = (
        [len(text) + 1 for p in pairs for text in (p.chosen, p.rejected)]
        for pairs in workload.padding_pairs()
    )
    assert sum(even) == sum(odd) and max(odd) == 2 * max(even) and len(even) == len(odd)


def test_a_laptop_gets_completions_of_64_tokens_with_their_prompts_and_samples_32_of_32(tmp_path):
    made = workload.make_works(["dpo", "grpo"], "1m", tmp_path, CPU, amounts.LAPTOP_AMOUNTS)
    assert made[0].trained == [(24, 40)] * 2 * workload.BENCH_PAIRS
    prompts = made[1].tokenizer(made[1].prompts)["input_ids"]
    assert [len(ids) for ids in prompts] == [32] * 4 and made[1].group == 8
    (piece,) = PLANS["laptop"]
    assert piece.size == "135m" and piece.amounts.longest == 32


def test_the_arithmetic_of_an_update_is_what_torch_counts(policy):
    lengths, shape = [(5, 7)] * 3, CPU_SHAPES["1m"]
    tokens = collate([EncodedExample([3] * 12, 5)] * 3, 0)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        reference_implementation(policy, tokens).logps.sum().backward()
    squares = (
        4 * 4 * 128 * 3 * (12 * 12 - 12 * 13 // 2)
    )  # torch counts the half of each attention square that a causal mask leaves out,
    head = (
        2 * 128 * 512 * 3 * (12 - 7)
    )  # and the plain path computes the vocabulary at prompt tokens too.
    first = (
        2 * 3 * 12 * (3 * 128 * 128)
    )  # Below the first LoRA matrices of a layer stack nothing needs a gradient.
    counted = counter.get_total_flops() - 3 * squares - 2 * head + first
    assert device_limits.training_flops(shape, lengths, []) == pytest.approx(counted, rel=0.01)


def test_decoding_reads_the_weights_once_a_token_and_the_cache_of_what_still_runs():
    shape = {
        "hidden_size": 4,
        "intermediate_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 10,
    }
    weights = 2 * (2 * 16 + 2 * 8 + 3 * 32) + 40
    cells = (
        (10 + 1) + (10 + 2) + (10 + 1)
    )  # Completions of 3 and 2 tokens after a prompt of 10: two reads of the cache, and one.
    assert device_limits.decoding_bytes(shape, [10], 2, [3, 2], 2) == 2 * (
        2 * weights + 2 * 2 * 2 * cells
    )


def test_training_costs_what_its_tokens_cost_and_not_what_its_padding_would(policy):
    batch = collate([EncodedExample([3] * 257, 1)] + [EncodedExample([3] * 17, 1)] * 15, 0)

    def operations(path):
        with FlopCounterMode(display=False) as counter:
            path(policy, batch).logps.sum().backward()
        return counter.get_total_flops()

    # One row of 257 tokens and fifteen of 17 are 512 tokens in place of 4,112.
    assert operations(reference_implementation) > 6 * operations(token_statistics)
