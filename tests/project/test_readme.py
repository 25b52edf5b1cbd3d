"""What the README says that can be checked."""

import json
import re
from pathlib import Path

import pytest

from lab.analysis.recorded_results import RESULTS_FOLDER, load_result, relative_cost
from lab.benchmarks.report import benchmark_table as bench_table
from lab.benchmarks.report import scaling_table
from lab.cli.main import COMMANDS
from lab.dashboard.state.arithmetic_text import only_restates_question
from lab.experiments import arithmetic, frontier
from lab.experiments.comparison_report import comparison_table
from lab.figures.comparison import ARTICLE_CLAIMS
from lab.tasks.rewards.answer_matching import same_number

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
KINDS = ("sum", "difference", "negative")
NEGATIVE = r"(?<!\d )(?<![\d)])[-−]\d"  # A minus behind a number takes away.
RECORDED = json.loads((ROOT / "lab" / "assets" / "results" / "chain-cpu.json").read_text("utf-8"))
BUILD = json.loads((ROOT / "lab" / "assets" / "embedded_model" / "BUILD.json").read_text("utf-8"))


def article_table(claims):
    """The article's bars beside the measured ones, as Markdown. `claims` maps models, memory and
    time to method → the article's number.
    """
    rows = {(row["size"], row["arm"]): row for row in load_result("resources")["rows"]}
    size = next(iter(rows))[0]
    comparison = load_result("chain-tokens")
    time = relative_cost(comparison, "seconds", {"ppo": "ppo", "dpo": "dpo", "grpo": "grpo"}, "ppo")
    whole = rows[size, "ppo.separate"]["measured"]
    lines = [
        "| | models: article | counted | memory: article | measured | time: article | measured |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for title, method, arm in (
        ("RLHF (PPO), four sets of weights", "ppo", "ppo.separate"),
        ("RLHF (PPO), one shared base", "ppo", "ppo.shared"),
        ("DPO", "dpo", "dpo"),
        ("GRPO", "grpo", "grpo"),
    ):
        row = rows[size, arm]
        lines.append(
            f"| {title} | {claims['models'][method]:g} | {len(row['models'])} |"
            f" {claims['memory'][method]:g} % | {100 * row['measured'] / whole:.0f} %"
            f" ({row['measured'] / 2**20:.0f} MiB) | {claims['time'][method]:g} % | "
            + ("– |" if arm == "ppo.separate" else f"{time[method]['mean']:.0f} % |")
        )
    return "\n".join(lines) + "\n"


def test_the_table_is_the_recorded_one_with_its_command_and_versions():
    assert comparison_table(RECORDED) in README
    assert (
        f"`{RECORDED['command']}`" in README
        and RECORDED["device"] in README
        and f"torch {RECORDED['torch']}" in README
    )


def test_the_article_s_chart_stands_beside_what_was_recorded():
    table = article_table(ARTICLE_CLAIMS)
    assert table in README
    assert (
        "| RLHF (PPO), one shared base | 4 | 4 | 100 % |" in table
        and "| DPO | 2 | 2 | 40 % |" in table
    )
    for name in ("chain-tokens", "resources"):
        assert f"`{load_result(name)['command']}`" in README


def test_what_the_readme_says_of_the_chart_is_what_the_tables_hold():
    rows = {(row["size"], row["arm"]): row for row in load_result("resources")["rows"]}
    assert (
        f"{rows['embedded', 'ppo.shared']['copies']:.2f} copies of the weights instead of"
        f" {rows['embedded', 'ppo.separate']['copies']:.2f}" in README
    )
    errors = [100 * row["error"] for row in rows.values()]
    assert (
        f"from {-min(errors):.0f} % below to {max(errors):.0f} % above the measured one" in README
    )
    errors = [100 * row["error"] for row in load_result("resources-h100")["rows"]]
    assert f"from {abs(round(min(errors)))} % to {max(errors):.0f} % above it" in README
    gold = {
        row["method"]: f"{row['gold/accuracy']['mean']:.2f} ± {row['gold/accuracy']['half']:.2f}"
        for row in load_result("chain-tokens")["methods"]
    }
    for method in ("ppo@gold", "ppo", "grpo", "grpo@model"):
        assert gold[method] in README


def gym_answer(prompt):
    """What the sum or difference in a recorded prompt comes to."""
    first, sign, second = re.search(r"(-?\d+) ([+-]) (-?\d+) =", prompt).groups()
    return int(first) + int(sign + "1") * int(second)


def gym_kind(prompt):
    """Whether a recorded prompt asks for a sum, for a difference, or for one that is negative."""
    return "sum" if "+" in prompt else "negative" if gym_answer(prompt) < 0 else "difference"


def told(found, digits=2):
    """A mean with half its interval, as it is written out."""
    return f"{found['mean']:.{digits}f} ± {found['half']:.{digits}f}"


def apart(one, other):
    """Whether two intervals have nothing in common."""
    return abs(one["mean"] - other["mean"]) > one["half"] + other["half"]


def test_what_the_readme_says_of_the_language_model_is_what_the_tables_hold():
    reward, sums, together = (
        load_result(name) for name in ("frontier", "arithmetic", "compare-smollm2")
    )
    for text in (
        frontier.reward_and_kl_table(reward),
        arithmetic.arithmetic_table(sums),
        comparison_table(together),
        *(f"`{table['command']}`" for table in (reward, sums, together)),
    ):
        assert text in README
    ends = {
        (row["method"], row["beta"]): {name: value["mean"] for name, value in row["end"].items()}
        for row in reward["rows"]
    }
    kl = {method: round(ends[method, 0.1]["kl"]) for method in reward["plan"]["rates"]}
    assert (
        f"DPO ends {kl['dpo']} nats from the reference, GRPO {kl['grpo']}, KTO {kl['kto']}, IPO and"
        f" PPO {kl['ipo']}."
        in README
        and kl["ipo"] == kl["ppo"]
    )
    assert (
        f"reaches {ends['grpo', 0.03]['reward']:.2f}, and {ends['grpo', 0.03]['repetition']:.0%} of"
        " its bigrams".replace("%", " %")
        in README
    )
    took = {row["method"]: row["seconds"]["mean"] for row in together["methods"]}
    assert (
        f"It takes {took['ppo'] / took['dpo']:.0f} times DPO's time and"
        f" {took['ppo'] / took['grpo']:.0f} times GRPO's" in README
    )


def test_what_the_readme_says_of_rewards_on_sums_is_what_the_table_holds():
    table = load_result("arithmetic")
    base = table["base"]["gold/accuracy"]
    assert f"the base is right {100 * base:.0f} % of the time." in README
    rows = {
        row["equal"]: row for row in table["rows"] if row["group_size"] == table["plan"]["control"]
    }
    gold = {equal: told(row["end"]["gold/accuracy"]) for equal, row in rows.items()}
    assert (
        f"from {base:.2f} to {gold['rollouts']} with checked answers" in README
        and f"a coin leaves it at {gold['random']}" in README
    )
    assert f"by {told(rows['random']['end']['kl'], 1)} nats of KL" in README
    assert not any(
        apart(rows[equal]["end"]["gold/accuracy"], {"mean": base, "half": 0.0})
        for equal in arithmetic.CONTROL_REWARDS
    )
    paid = rows["math"]["reward"]["mean"][-1]
    assert (
        f"pays {paid:.2f} of the last update's texts, and {gold['math']} of the held-out ones are"
        " right" in README
    )
    right = {
        who: [same_number(str(gym_answer(one["prompt"])), one["completion"]) for one in said]
        for who, said in table["shown"].items()
    }
    again = {
        who: sum(only_restates_question(one) and not good for one, good in zip(said, right[who]))
        for who, said in table["shown"].items()
    }
    ended = {who: sum(found) for who, found in right.items()}
    assert (
        f"{ended['math']} end in the right number and {again['math']} only say the sum again; of"
        f" the base's {ended['base']} and {again['base']}." in README
    )
    solved = {
        kind: [
            good
            for one, good in zip(table["shown"]["grpo"], right["grpo"])
            if kind == gym_kind(one["prompt"])
        ]
        for kind in KINDS
    }
    assert (
        "it has {} of {} sums right, {} of {} differences, and {} of {} that go below zero: it"
        " writes no negative number".format(
            *(count for kind in KINDS for count in (sum(solved[kind]), len(solved[kind])))
        )
        in README
    )
    assert not any(re.search(NEGATIVE, one["completion"]) for one in table["shown"]["grpo"])
    assert (
        sum(bool(re.search(NEGATIVE, one["completion"])) for one in table["shown"]["base"]) == 1
        and "The base wrote one in its 50" in README
    )


def test_what_the_readme_says_of_group_sizes_on_sums_is_what_the_table_holds():
    rows = {(row["equal"], row["group_size"]): row for row in load_result("arithmetic")["rows"]}
    gold = {key: row["end"]["gold/accuracy"] for key, row in rows.items()}
    assert f"{told(gold['rollouts', 2])} with 2 and {told(gold['rollouts', 32])} with 32." in README
    assert (
        f"G = 2 ends at {told(gold['steps', 2])}, below G = 16 and G = 32"
        f" ({told(gold['steps', 16])} and {told(gold['steps', 32])})" in README
    )
    sizes = (2, 4, 8, 16, 32)
    assert not any(
        apart(gold["rollouts", one], gold["rollouts", other]) for one in sizes for other in sizes
    )
    assert [
        (one, other)
        for one in sizes
        for other in sizes
        if one < other and apart(gold["steps", one], gold["steps", other])
    ] == [(2, 16), (2, 32)]
    tokens = {
        size: (
            rows["steps", size]["end"]["tokens"]["mean"] / rows["steps", 2]["end"]["tokens"]["mean"]
        )
        for size in sizes
    }
    assert f"train on {tokens[16]:.0f} and {tokens[32]:.0f} times its tokens" in README
    dead = {key: row["dead"]["mean"] for key, row in rows.items()}
    first = {size: dead["rollouts", size][0] for size in (2, 32)}
    assert (
        f"{100 * first[2]:.0f} % of the groups of two teach nothing and {100 * first[32]:.0f} % of"
        " those of 32" in README
    )
    assert (
        f"64 prompts leave {64 * (1 - first[2]):.0f} live groups and 4 prompts leave"
        f" {4 * (1 - first[32]):.0f}." in README
    )
    last = [ends[-1] for (equal, _), ends in dead.items() if equal in ("rollouts", "steps")]
    assert f"{100 * min(last):.0f} to {100 * max(last):.0f} % are dead" in README


@pytest.mark.parametrize("name", sorted(path.stem for path in RESULTS_FOLDER.glob("bench-*.json")))
def test_the_benchmark_is_the_recorded_one_with_its_command_and_versions(name):
    table = load_result(name)
    assert bench_table(table) in README
    for said in (
        f"`{table['command']}`",
        table["device"],
        f"torch {table['torch']}",
        f"transformers {table['transformers']}",
        table["peer"] or "",
    ):
        assert said in README


def test_the_table_of_several_gpus_is_the_recorded_one_with_its_commands():
    tables = [load_result(path.stem) for path in sorted(RESULTS_FOLDER.glob("scaling-*.json"))]
    assert not tables or scaling_table(tables) in README
    assert all(
        f"torchrun --nproc-per-node {t['processes']} -m lab"
        f" {t['command'].removeprefix('python -m lab ')}" in README
        for t in tables
    )


def test_what_the_readme_says_of_rlhf_s_faults_is_what_the_experiments_found():
    spreads = {
        (row["method"], row["knob"]): f"{row['spread']:.2f}"
        for row in load_result("sensitivity")["rows"]
    }
    assert (
        f"moves its gold accuracy by {spreads['ppo', 'epsilon']}, its learning rate by"
        f" {spreads['ppo', 'learning_rate']}" in README
    )
    assert (
        spreads["ppo", "epsilon"]
        == spreads["ppo", "beta"]
        == spreads["ppo", "critic_learning_rate"]
    )
    assert f"DPO's β alone moves DPO's by {spreads['dpo', 'beta']}" in README
    rows = load_result("overoptimisation")["rows"]
    fallen = [row for row in rows if row["best_gold"] - row["curve"]["gold"][-1] >= 0.05]
    assert (
        all(row["proxy_last"] > row["proxy_first"] for row in rows)
        and f"in {len(fallen)} of {len(rows)} cases" in README
    )
    assert (
        f"ends at {max(row['gold'] for row in rows if row['method'] == 'grpo'):.2f} or below"
        in README
    )
    for name in ("sensitivity", "overoptimisation"):
        assert f"`{load_result(name)['command']}`" in README


def test_the_recorded_comparison_reaches_what_the_lessons_need():
    rows = {row["method"]: row for row in RECORDED["methods"]}
    assert RECORDED["base"]["gold/accuracy"] <= 0.55
    assert rows["grpo"]["gold/accuracy"]["mean"] >= 0.90 and rows["grpo"]["seconds"]["mean"] <= 60
    assert all(len(runs) >= 3 for runs in RECORDED["runs"].values())


def test_the_starting_point_is_the_one_that_was_built():
    start = BUILD["starting_point"]
    for share in ("answer_alone_accuracy", "scratchpad_accuracy", "scratchpad_share"):
        assert f"{start[share]:.0%}".replace("%", " %") in README


def test_the_first_commands_are_the_three_that_a_newcomer_needs():
    assert re.findall(r"^make \w+", README, re.M)[:3] == ["make app", "make lab", "make test"]


@pytest.mark.parametrize(
    "path",
    sorted(
        set(re.findall(r"^((?:lab|tests)/[\w/]*(?:\.py)?|app\.py)", README, re.M))
        | set(re.findall(r"docs/[\w.-]+", README))
    ),
)
def test_every_file_that_the_readme_names_is_there(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"-m lab ([a-z][a-z-]+)", README))))
def test_every_command_that_the_readme_types_exists(command):
    assert command in COMMANDS


def test_the_map_has_one_line_for_every_package():
    lines = README.split("## Map")[1].split("```")[1].strip().splitlines()
    named = [line.split()[0] for line in lines]
    packages = {f"lab/{path.parent.name}/" for path in (ROOT / "lab").glob("*/__init__.py")}
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert sorted(name for name in named if name.startswith("lab/")) == sorted(
        packages | {"lab/assets/"}
    )
