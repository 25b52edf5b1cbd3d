"""Blocks on what each method makes of the chain task."""

import json

from docs_blocks.markdown import markdown_table, percent, tables_of, with_source
from lab.analysis.claims.records import Records, TunedResults
from lab.analysis.claims.table import CLAIMS
from lab.analysis.group_sizes import best_sizes_sentence
from lab.analysis.recorded_results import RESULTS_FOLDER, load_result, relative_cost
from lab.analysis.statistics import Interval
from lab.experiments import groups, overoptimisation, sensitivity
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


def displacement() -> str:
    """Return how much less likely chosen and rejected completions are after training, at β = 0.1."""
    table = load_result("beta")
    rows = []
    for row in table["rows"]:
        if row["beta"] == DEFAULT_BETA:
            last = row["steps"].index(LOOK)
            moved = [
                Interval(row[name]["mean"][last], row[name]["half"][last]).signed(1)
                for name in ("logps/chosen", "logps/rejected")
            ]
            rows.append([METHOD_NAMES[row["method"]], *moved])
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
    """Return gold accuracy with the rule and with a reward model, tuned at equal tokens."""
    table = load_result("tuned")
    tuned = TunedResults(table)
    rows = []
    for rule in ("ppo", "online_dpo"):
        model = f"{rule}.model"
        lead = tuned.compare(rule, model).text
        rows += [
            [tuned.title(arm), tuned.text(arm), tuned.text(arm, measure="kl"), said]
            for arm, said in ((rule, lead), (model, ""))
        ]
    heads = ["method, judge", "gold accuracy", "KL, nats", "gold accuracy, rule − reward model"]
    text = f"{markdown_table(heads, rows)}\n{claim_verdict('reward-model-ceiling')}"
    return with_source(text, table, "tuned")


def claim_verdict(key: str) -> str:
    """Return the verdict and the measurement of a claim of the article."""
    measured = CLAIMS[key].measure(Records())
    return f"**Verdict:** {measured.verdict}. {measured.text}"


def reward_models() -> str:
    """Return what is left of gold accuracy after optimising reward models and ensembles of them."""
    table = load_result("overoptimisation")
    fallen = [
        row for row in table["rows"] if row["best_gold"] - row["curve"]["gold"][-1] >= GOLD_FALL
    ]
    risen = [row for row in table["rows"] if row["proxy_last"] > row["proxy_first"]]
    text = (
        f"The reward model's score rises in {len(risen)} of {len(table['rows'])} cases. Gold accuracy"
        f" ends {GOLD_FALL:g} or more below its best in {len(fallen)} of {len(table['rows'])}.\n\n"
        f"{tables_of(overoptimisation.render_report(table))}\n\n{claim_verdict('reward-model-exploited')}"
        f"\n\nWith an ensemble: {claim_verdict('ensembles-keep-gold')}"
    )
    return with_source(text, table, "overoptimisation")


def all_knobs() -> str:
    """Return gold accuracy of every method when one setting is changed, and whether PPO stands out."""
    return f"{claim_verdict('ppo-unstable')}\n\n{knob_rows()}"


def group_sizes() -> str:
    """Return gold accuracy, dead groups and cost by group size, and which size is best."""
    table = load_result("groups")
    text = f"{tables_of(groups.render_report(table))}\n\n**Verdict:** {best_sizes_sentence(table)}"
    return with_source(text, table, "groups")


BLOCKS = {
    "chain-start": starting_point,
    "chain-tokens": lambda: all_methods("chain-tokens"),
    "chain-displacement": displacement,
    "chain-drift": distance_from_data,
    "chain-knobs-offline": lambda: knob_rows("sft", "dpo", "ipo", "kto"),
    "chain-groups": group_sizes,
    "article-chart": article_chart,
    "article-memory": memory_by_size,
    "article-judges": judges,
    "article-reward-models": reward_models,
    "article-knobs": all_knobs,
    "article-ceiling": lambda: claim_verdict("online-ceiling"),
}
