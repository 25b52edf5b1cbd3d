"""Blocks on what each method makes of the chain task."""

import json

from docs_blocks.markdown import markdown_table, percent, signed, tables_of, told, with_source
from lab.analysis.recorded_results import (
    RESULTS_FOLDER,
    Comparison,
    family_note,
    judged_differences,
    load_result,
    relative_cost,
)
from lab.analysis.statistics import NOT_NEGATIVE, SHARE
from lab.experiments import overoptimisation, sensitivity
from lab.experiments.comparison_report import comparison_table
from lab.figures.comparison import ARTICLE_CLAIMS
from lab.figures.palette import METHOD_NAMES

ASSETS = RESULTS_FOLDER.parent
DEFAULT_BETA = 0.1
LOOK = 100  # Updates after which the experiment "beta" is read.
GOLD_FALL = 0.05


def starting_point() -> str:
    """Return what the base does before any preference learning, and its preference pairs."""
    build = json.loads((ASSETS / "embedded_model" / "BUILD.json").read_text("utf-8"))
    pairs = json.loads((ASSETS / "preference_pairs" / "pairs.json").read_text("utf-8"))
    start = build["starting_point"]
    rows = [
        ["held-out prompts", f"{start['prompts']:,}"],
        ["completions with a scratchpad", percent(start["scratchpad_share"])],
        ["right with a scratchpad", percent(start["scratchpad_accuracy"])],
        ["right without a scratchpad", percent(start["answer_alone_accuracy"])],
        ["right in all", percent(start["accuracy"])],
        ["preference pairs, sampled from the base", f"{pairs['pairs']:,}"],
        ["chosen completions with a scratchpad", percent(pairs["scratchpad_share_chosen"])],
        ["rejected completions with a scratchpad", percent(pairs["scratchpad_share_rejected"])],
    ]
    table = markdown_table(["the base, before preference learning", ""], rows)
    return (
        f"{table}\nThe base: `{build['command']}`, record `embedded_model/BUILD.json`."
        f" The pairs: `{pairs['command']}`, record `preference_pairs/pairs.json`."
    )


def all_methods(record: str) -> str:
    """Return every measure of a comparison."""
    table = load_result(record)
    return with_source(
        f"{comparison_table(table)}\n{table['evaluation'].capitalize()}.", table, record
    )


def differences() -> str:
    """Return the differences in gold accuracy at defaults, with their words."""
    table = load_result("chain-cpu")
    titles = {row["method"]: row["title"] for row in table["methods"]}
    judged = judged_differences(table["runs"])
    rows = [
        [
            f"{titles[first]} − {titles[second]}",
            judgement.difference.interval.signed(3),
            judgement.word,
        ]
        for first, second, judgement in judged
    ]
    heads = ["difference in gold accuracy", "mean over seeds", "the first is"]
    return with_source(
        f"{markdown_table(heads, rows)}\n{family_note(len(judged))}", table, "chain-cpu"
    )


def displacement() -> str:
    """Return how much less likely chosen and rejected completions are after training, at β = 0.1."""
    table = load_result("beta")
    rows = []
    for row in table["rows"]:
        if row["beta"] == DEFAULT_BETA:
            last = row["steps"].index(LOOK)
            changes = [
                row[name]["mean"][last] - row[name]["mean"][0]
                for name in ("logps/chosen", "logps/rejected")
            ]
            rows.append([METHOD_NAMES[row["method"]], *(signed(change, 1) for change in changes)])
    heads = [f"after {LOOK} updates at β = {DEFAULT_BETA:g}", "chosen, nats", "rejected, nats"]
    return with_source(markdown_table(heads, rows), table, "beta")


def distance_from_data() -> str:
    """Return how likely DPO's pairs are after training, with intervals."""
    table = load_result("drift")
    rows = [
        [
            METHOD_NAMES[row["method"]],
            f"{row['logps/chosen'][0]:.1f} → {row['logps/chosen'][-1]:.1f} ±"
            f" {row['logps/chosen ±'][-1]:.1f}",
            f"{row['logps/rejected'][0]:.1f} → {row['logps/rejected'][-1]:.1f} ±"
            f" {row['logps/rejected ±'][-1]:.1f}",
        ]
        for row in table["rows"]
    ]
    steps = table["rows"][0]["step"][-1]
    heads = [f"over {steps} updates", "log π(chosen), nats", "log π(rejected), nats"]
    return with_source(markdown_table(heads, rows), table, "drift")


def knob_rows(*methods: str) -> str:
    """Return gold accuracy when one setting is divided or multiplied; of all methods if none is named."""
    table = load_result("sensitivity")
    rows = [row for row in table["rows"] if row["method"] in (methods or METHOD_NAMES)]
    return with_source(
        tables_of(sensitivity.render_report(table | {"rows": rows})), table, "sensitivity"
    )


def article_chart() -> str:
    """Return the article's bars beside the measured ones."""
    measured = {(row["size"], row["arm"]): row for row in load_result("resources")["rows"]}
    size = next(iter(measured))[0]
    arms = {"ppo": "ppo", "dpo": "dpo", "grpo": "grpo"}
    time = relative_cost(load_result("chain-tokens"), "seconds", arms, "ppo")
    whole = measured[size, "ppo.separate"]["measured"]
    rows = []
    for title, method, arm in (
        ("RLHF (PPO), four sets of weights", "ppo", "ppo.separate"),
        ("RLHF (PPO), one shared base", "ppo", "ppo.shared"),
        ("DPO", "dpo", "dpo"),
        ("GRPO", "grpo", "grpo"),
    ):
        row = measured[size, arm]
        rows.append(
            [
                title,
                f"{ARTICLE_CLAIMS['models'][method]:g}",
                str(len(row["models"])),
                f"{row['copies']:.2f}",
                f"{ARTICLE_CLAIMS['memory'][method]:g} %",
                f"{100 * row['measured'] / whole:.0f} % ({row['measured'] / 2**20:.0f} MiB)",
                f"{ARTICLE_CLAIMS['time'][method]:g} %",
                "–" if arm == "ppo.separate" else f"{time[method]['mean']:.0f} %",
            ]
        )
    heads = [
        "",
        "models: article",
        "counted",
        "copies of the weights",
        "memory: article",
        "measured",
        "time: article",
        "measured",
    ]
    return markdown_table(heads, rows) + "\n" + _chart_sources()


def _chart_sources() -> str:
    sources = (
        ("Models and memory", "resources", ""),
        ("Time", "chain-tokens", ", 3 seeds, mean of the ratios"),
    )
    return "\n".join(
        f"- {title}: `{load_result(name)['command']}` on {load_result(name)['device']}{more};"
        f" record `{name}.json`"
        for title, name, more in sources
    )


def memory_by_size() -> str:
    """Return the measured peak of one update of each method, for three sizes."""
    table = load_result("resources")
    peaks: dict[str, dict[str, int]] = {}
    for row in table["rows"]:
        peaks.setdefault(row["size"], {})[row["arm"]] = row["measured"]
    arms = ("ppo.separate", "ppo.shared", "dpo", "kto", "grpo")
    rows = [
        [
            size,
            *(f"{peak[arm] / 2**20:.0f} ({peak[arm] / peak['ppo.separate']:.0%})" for arm in arms),
        ]
        for size, peak in peaks.items()
    ]
    heads = ["peak in MiB", "PPO, four sets", "PPO, one shared base", "DPO", "KTO", "GRPO"]
    return with_source(markdown_table(heads, rows).replace("%)", " %)"), table, "resources")


def judges() -> str:
    """Return gold accuracy and the reward model's score, with the rule and with a reward model."""
    table = load_result("chain-tokens")
    measured, methods = Comparison(table), {row["method"]: row for row in table["methods"]}
    pairs = [("ppo@gold", "ppo"), ("online_dpo@gold", "online_dpo"), ("grpo", "grpo@model")]
    rows = []
    for rule, model in pairs:
        lead = measured.judge(pairs)[pairs.index((rule, model))]
        for arm in (rule, model):
            row = methods[arm]
            rows.append(
                [
                    row["title"],
                    told(row["gold/accuracy"], 2, SHARE),
                    told(row["proxy"], 1),
                    told(row["kl"], 1, NOT_NEGATIVE),
                    lead.text() if arm == rule else "",
                ]
            )
    heads = [
        "method, judge",
        "gold accuracy",
        "proxy reward",
        "KL, nats",
        "gold accuracy, rule − reward model",
    ]
    note = "The words hold for the three comparisons together (Holm's correction); unpaired."
    return with_source(f"{markdown_table(heads, rows)}\n{note}", table, "chain-tokens")


def reward_models() -> str:
    """Return what is left of gold accuracy after optimising reward models of four qualities."""
    table = load_result("overoptimisation")
    fallen = [
        row for row in table["rows"] if row["best_gold"] - row["curve"]["gold"][-1] >= GOLD_FALL
    ]
    risen = [row for row in table["rows"] if row["proxy_last"] > row["proxy_first"]]
    text = (
        f"The reward model's score rises in {len(risen)} of {len(table['rows'])} cases. Gold accuracy"
        f" ends {GOLD_FALL:g} or more below its best in {len(fallen)} of {len(table['rows'])}.\n\n"
        f"{tables_of(overoptimisation.render_report(table))}"
    )
    return with_source(text, table, "overoptimisation")


def equal_tokens_against(first: str, second: str) -> str:
    """Return the difference in gold accuracy of two methods at equal tokens, with its word."""
    table = load_result("chain-tokens")
    judgement = Comparison(table).judge_article(first, second)
    titles = {row["method"]: row["title"] for row in table["methods"]}
    return with_source(
        f"Gold accuracy, {titles[first]} − {titles[second]}: {judgement.text(3)}.",
        table,
        "chain-tokens",
    )


BLOCKS = {
    "chain-start": starting_point,
    "chain-defaults": lambda: all_methods("chain-cpu"),
    "chain-differences": differences,
    "chain-tokens": lambda: all_methods("chain-tokens"),
    "chain-displacement": displacement,
    "chain-drift": distance_from_data,
    "chain-knobs-offline": lambda: knob_rows("dpo", "ipo"),
    "article-chart": article_chart,
    "article-memory": memory_by_size,
    "article-judges": judges,
    "article-reward-models": reward_models,
    "article-knobs": knob_rows,
    "article-ceiling": lambda: equal_tokens_against("grpo", "ppo@gold"),
}
