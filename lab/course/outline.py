"""The outline of the course: the minutes and prerequisites of every notebook, and the objective, minutes and
difficulty of every exercise.
"""

from dataclasses import dataclass

from lab.course.build_notebooks import notebooks, read_notebook
from lab.course.exercises.registry import EXERCISES
from lab.course.learner_lines import learner_lines
from lab.course.setup_cell import REPOSITORY
from lab.errors import LabError

DIFFICULTIES = ("one line", "a few lines", "needs thought")


@dataclass(frozen=True)
class Goal:
    """What a learner can do after an exercise, the minutes that it takes, and its difficulty: 1 to 3,
    as in `DIFFICULTIES`. The minutes are the authors' plan; no class has measured them yet.
    """

    objective: str
    minutes: int
    difficulty: int


GOALS = {
    "my_score": Goal("say which completion is right, and which only looks right", 5, 1),
    "my_confidence_interval": Goal("give a mean of a few seeds with its interval", 8, 2),
    "my_sft_loss": Goal("write the loss of supervised fine-tuning over completion tokens", 6, 1),
    "my_bradley_terry": Goal("turn two rewards into the probability of a preference", 5, 1),
    "my_reward_model_loss": Goal("train a reward model on pairs", 5, 1),
    "my_kl_shaped_rewards": Goal("pay for the distance to the reference token by token", 12, 3),
    "my_gae": Goal("spread a late reward over the tokens with a critic", 15, 3),
    "my_whiten": Goal("whiten advantages over the tokens that count", 8, 2),
    "my_objective": Goal("compute what RLHF maximises in a world of five answers", 6, 2),
    "my_log_partition": Goal("compute log Z without overflow", 5, 1),
    "my_optimal_policy": Goal("write down the best policy for a reward and β", 6, 2),
    "my_implied_reward": Goal("read a reward off a policy, up to a constant", 4, 1),
    "my_completion_mask": Goal("mask completions by length, the end token included", 15, 3),
    "my_sequence_logps": Goal("sum token log-probabilities over the mask", 4, 1),
    "my_dpo_loss": Goal("write the DPO loss from four log-probabilities", 8, 2),
    "my_dpo_gradient_weight": Goal("say how hard a pair pulls, and what β does to it", 8, 2),
    "my_ipo_loss": Goal("give the margin a target", 5, 2),
    "my_ipo_token_mean": Goal("tell a margin per sequence from one per token", 6, 2),
    "my_kto_loss": Goal("learn from good and bad completions without pairs", 12, 3),
    "my_kto_z": Goal("estimate KTO's reference point from mismatched pairs", 12, 3),
    "my_desirable_weight": Goal("choose KTO's weights for unequal data", 5, 1),
    "my_ratio": Goal("compare the policy with the one that sampled", 3, 1),
    "my_clipped_surrogate": Goal("clip an objective on the right side", 12, 3),
    "my_kl_estimate": Goal("tell three KL estimators apart, signs included", 10, 2),
    "my_exact_kl": Goal("compute a KL over a whole vocabulary", 6, 2),
    "my_leave_one_out": Goal("use the others of a group as the baseline", 8, 2),
    "my_group_advantages": Goal("replace the critic by the group", 10, 2),
    "my_dead_group_rate": Goal("predict how many groups teach nothing", 5, 1),
    "my_reduction": Goal("say what a loss averages over, and whom that favours", 12, 3),
    "my_pass_at_k": Goal("estimate pass@k from n samples without bias", 6, 2),
    "my_steps_reward": Goal("write a reward for steps, and see what it pays for", 10, 2),
    "my_short_reward": Goal("write a reward for right and short answers", 8, 2),
    "my_paired_difference": Goal("compare two methods seed by seed", 8, 2),
    "my_relative_cost": Goal("average a relative cost in the right order", 4, 1),
    "my_hinge_loss": Goal("write a pair loss with a margin that is enough", 6, 1),
    "my_smoothed_loss": Goal("write a pair loss that expects some wrong labels", 8, 2),
    "my_holm": Goal("correct for several comparisons at once", 10, 3),
    "my_reward": Goal("write a reward that cannot be earned by form alone", 10, 2),
    "my_preference_line": Goal("write a pair as a line of JSON", 4, 1),
    "my_merged_weight": Goal("merge a LoRA adapter into a weight", 6, 2),
    "my_lora_layer": Goal("write a LoRA layer by hand", 8, 2),
    "my_token_logps": Goal("get log-probabilities of tokens, shifted by one", 10, 3),
    "my_next_token": Goal("sample a token with a temperature", 10, 2),
    "my_dpo_batch_loss": Goal("go from tokens to the DPO loss of a batch", 10, 2),
    "my_grpo_batch_loss": Goal("go from rewards to the GRPO loss of a batch", 12, 3),
}


@dataclass(frozen=True)
class NotebookPlan:
    """The minutes that a notebook takes with its exercises, and the notebooks to read before it."""

    minutes: int
    before: tuple[str, ...] = ()


PLANS = {
    "00": NotebookPlan(40),
    "01": NotebookPlan(75, ("00",)),
    "02": NotebookPlan(45, ("00",)),
    "03": NotebookPlan(70, ("00", "02")),
    "04": NotebookPlan(75, ("03",)),
    "05": NotebookPlan(75, ("01",)),
    "06": NotebookPlan(70, ("05",)),
    "07": NotebookPlan(50, ("03", "06")),
    "08": NotebookPlan(60, ("03", "06")),
    "09": NotebookPlan(80, ("03", "06")),
    "10": NotebookPlan(40, ("06",)),
    "11": NotebookPlan(45, ("03", "04")),
    "12": NotebookPlan(45, ("03", "04", "06")),
    "13": NotebookPlan(180, ("06", "07", "08")),
}


def exercise_table() -> str:
    """Return the table of the exercises in Markdown."""
    rows = [
        "| notebook | exercise | afterwards you can | minutes | difficulty |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, exercise in sorted(EXERCISES.items(), key=lambda item: item[1].notebook):
        goal = goal_of(name)
        difficulty = DIFFICULTIES[goal.difficulty - 1]
        rows.append(
            f"| {exercise.notebook:02d} | `{name}` | {goal.objective} | {goal.minutes} | {difficulty} |"
        )
    return "\n".join(rows)


def lines_table() -> str:
    """Return the table of the lines that a learner writes, in Markdown."""
    rows = [
        "| notebook | lines that you write | of them in a training run | more with `--blank` |",
        "| --- | --- | --- | --- |",
    ]
    counts = {path.stem: learner_lines(read_notebook(path)) for path in notebooks()}
    for stem, own in counts.items():
        if own.written:
            title = stem.replace("-", " ")
            rows.append(f"| {title} | {own.written} | {own.training} | {own.blank or '–'} |")
    sums = [
        sum(getattr(own, f) for own in counts.values()) for f in ("written", "training", "blank")
    ]
    return "\n".join([*rows, f"| all | {sums[0]} | {sums[1]} | {sums[2]} |"])


def goal_of(name: str) -> Goal:
    """Return the goal of an exercise; raise `LabError` where it has none."""
    if name not in GOALS:
        raise LabError(f"The exercise {name} has no goal. Add its line to GOALS in {__name__}.")
    return GOALS[name]


def notebook_table(repository: str = REPOSITORY) -> str:
    """Return the table of the notebooks in Markdown. With an address there are badges that open each of
    them elsewhere.
    """
    rows = [
        "| notebook | question | minutes | read before | open |",
        "| --- | --- | --- | --- | --- |",
    ]
    for path in notebooks():
        number, _, question = (
            read_notebook(path).cells[0].source.splitlines()[0].removeprefix("# ").partition(" · ")
        )
        if number not in PLANS:
            raise LabError(f"Notebook {number} has no plan. Add its line to PLANS in {__name__}.")
        plan = PLANS[number]
        title = path.stem.partition("-")[2].replace("-", " ")
        rows.append(
            f"| {number} {title} | {question} | {plan.minutes} | {', '.join(plan.before) or '–'} |"
            f" {_open(path.stem, repository)} |"
        )
    return "\n".join(rows)


def _open(stem: str, repository: str) -> str:
    """Return the places to open a notebook."""
    read = f"[read](notebooks/{stem}.md)"
    if not repository:
        return read
    colab = (
        f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/{stem}.ipynb"
    )
    binder = f"https://mybinder.org/v2/gh/{repository}/main?labpath=notebooks%2F{stem}.ipynb"
    badges = [
        f"[![Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})",
        f"[![Binder](https://mybinder.org/badge_logo.svg)]({binder})",
        f"[Codespaces](https://codespaces.new/{repository})",
    ]
    return " ".join([read, *badges])
