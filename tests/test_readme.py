"""What the README says that can be checked."""

import json
import re
from pathlib import Path

import pytest

from lab.cli import COMMANDS
from lab.experiments import arithmetic, frontier
from lab.experiments.bench_report import markdown as bench_table
from lab.experiments.bench_report import scaling
from lab.experiments.compare import markdown
from lab.figures.comparison import ARTICLE
from lab.results import FOLDER, article_table, load_result
from lab.tasks.answers import same_number

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
RECORDED = json.loads((ROOT / "lab" / "assets" / "compare" / "chain-cpu.json").read_text("utf-8"))
BUILD = json.loads((ROOT / "lab" / "assets" / "base" / "BUILD.json").read_text("utf-8"))


def test_the_table_is_the_recorded_one_with_its_command_and_versions():
    assert markdown(RECORDED) in README
    assert f"`{RECORDED['command']}`" in README and RECORDED["device"] in README and f"torch {RECORDED['torch']}" in README


def test_the_article_s_chart_stands_beside_what_was_recorded():
    table = article_table(ARTICLE)
    assert table in README
    assert "| RLHF (PPO), one shared base | 4 | 4 | 100 % |" in table and "| DPO | 2 | 2 | 40 % |" in table
    for name in ("chain-tokens", "resources"):
        assert f"`{load_result(name)['command']}`" in README


def test_what_the_readme_says_of_the_chart_is_what_the_tables_hold():
    rows = {(row["size"], row["arm"]): row for row in load_result("resources")["rows"]}
    assert f"{rows['embedded', 'ppo.shared']['copies']:.2f} copies of the weights instead of {rows['embedded', 'ppo.separate']['copies']:.2f}" in README
    errors = [100 * row["error"] for row in rows.values()]
    assert f"from {-min(errors):.0f} % below to {max(errors):.0f} % above the measured one" in README
    errors = [100 * row["error"] for row in load_result("resources-h100")["rows"]]
    assert f"from {abs(round(min(errors)))} % to {max(errors):.0f} % above it" in README
    gold = {row["method"]: f"{row['gold/accuracy']['mean']:.2f} ± {row['gold/accuracy']['half']:.2f}" for row in load_result("chain-tokens")["methods"]}
    for method in ("ppo@gold", "ppo", "grpo", "grpo@model"):
        assert gold[method] in README


def gym_answer(prompt):
    """What the sum or difference in a recorded prompt comes to."""
    first, sign, second = re.search(r"(-?\d+) ([+-]) (-?\d+) =", prompt).groups()
    return int(first) + int(sign + "1") * int(second)


def test_what_the_readme_says_of_the_language_model_is_what_the_tables_hold():
    reward, sums, together = (load_result(name) for name in ("frontier", "arithmetic", "compare-smollm2"))
    for text in (frontier.matrix(reward), arithmetic.markdown(sums), markdown(together), *(f"`{table['command']}`" for table in (reward, sums, together))):
        assert text in README
    ends = {(row["method"], row["beta"]): {name: value["mean"] for name, value in row["end"].items()} for row in reward["rows"]}
    kl = {method: round(ends[method, 0.1]["kl"]) for method in reward["plan"]["rates"]}
    assert f"DPO ends {kl['dpo']} nats from the reference, GRPO {kl['grpo']}, KTO {kl['kto']}, IPO and PPO {kl['ipo']}." in README and kl["ipo"] == kl["ppo"]
    assert f"reaches {ends['grpo', 0.03]['reward']:.2f}, and {ends['grpo', 0.03]['repetition']:.0%} of its bigrams".replace("%", " %") in README
    took = {row["method"]: row["seconds"]["mean"] for row in together["methods"]}
    assert f"It takes {took['ppo'] / took['dpo']:.0f} times DPO's time and {took['ppo'] / took['grpo']:.0f} times GRPO's" in README
    assert f"the base is right {100 * sums['base']['gold/accuracy']:.0f} % of the time." in README
    passed = {who: sum(one["gold"] for one in said) for who, said in sums["shown"].items()}
    held = {who: sum(one["gold"] and same_number(str(gym_answer(one["prompt"])), one["completion"]) for one in said) for who, said in sums["shown"].items()}
    assert held["grpo"] == 0 and f"the verifier passes {passed['grpo']:.0f}, and none holds the number" in README
    assert f"of the base's it passed {passed['base']:.0f}, and {held['base']:.0f} of those hold it" in README


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("bench-*.json")))
def test_the_benchmark_is_the_recorded_one_with_its_command_and_versions(name):
    table = load_result(name)
    assert bench_table(table) in README
    for said in (f"`{table['command']}`", table["device"], f"torch {table['torch']}", f"transformers {table['transformers']}", table["peer"] or ""):
        assert said in README


def test_the_table_of_several_gpus_is_the_recorded_one_with_its_commands():
    tables = [load_result(path.stem) for path in sorted(FOLDER.glob("scaling-*.json"))]
    assert not tables or scaling(tables) in README
    assert all(f"torchrun --nproc-per-node {t['processes']} -m lab {t['command'].removeprefix('python -m lab ')}" in README for t in tables)


def test_what_the_readme_says_of_rlhf_s_faults_is_what_the_experiments_found():
    spreads = {(row["method"], row["knob"]): f"{row['spread']:.2f}" for row in load_result("sensitivity")["rows"]}
    assert f"moves its gold accuracy by {spreads['ppo', 'epsilon']}, its learning rate by {spreads['ppo', 'learning_rate']}" in README
    assert spreads["ppo", "epsilon"] == spreads["ppo", "beta"] == spreads["ppo", "critic_learning_rate"]
    assert f"DPO's β alone moves DPO's by {spreads['dpo', 'beta']}" in README
    rows = load_result("overoptimisation")["rows"]
    fallen = [row for row in rows if row["best_gold"] - row["curve"]["gold"][-1] >= 0.05]
    assert all(row["proxy_last"] > row["proxy_first"] for row in rows) and f"in {len(fallen)} of {len(rows)} cases" in README
    assert f"ends at {max(row['gold'] for row in rows if row['method'] == 'grpo'):.2f} or below" in README
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


@pytest.mark.parametrize("path", sorted(set(re.findall(r"^((?:lab|tests)/[\w/]*(?:\.py)?|app\.py)", README, re.M)) | set(re.findall(r"docs/[\w.-]+", README))))
def test_every_file_that_the_readme_names_is_there(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"-m lab ([a-z][a-z-]+)", README))))
def test_every_command_that_the_readme_types_exists(command):
    assert command in COMMANDS


def test_the_map_names_what_exists_and_everything_once():
    lines = README.split("## Map")[1].split("```")[1].splitlines()
    named = [name for line in lines for name in re.findall(r"(?:^|  +|: )((?:lab/)?[a-z_/]+(?:\.py|/))(?= )", line)]
    assert len(named) > 40 and len(named) == len(set(named)), sorted(name for name in named if named.count(name) > 1)
    assert [name for name in named if not (ROOT / name).exists() and not (ROOT / "lab" / name).exists()] == []
