"""Page Taste: label answers, train on the labels, and compare what five methods make of them."""

from lab.dashboard.components.layout import cannot_show, page_heading, what_to_look_at
from lab.dashboard.pages.taste.experiment import experiment_section
from lab.dashboard.pages.taste.label_set import choose_label_set
from lab.dashboard.pages.taste.labelling import labelling
from lab.dashboard.pages.taste.results import refresh_margins, training_section
from lab.dashboard.pages.taste.sharing import sharing_section
from lab.dashboard.state import actions

QUESTION = "Can a model learn your taste?"
SENTENCE = (
    "Say which answer you prefer, with two keys or a tap. Every label is stored at once. Then one set of"
    " labels trains DPO, IPO, KTO, and a reward model with PPO."
)
WORDS = (
    "agreement",
    "chosen and rejected",
    "completion",
    "gold accuracy",
    "held-out",
    "implicit reward",
    "kappa",
    "margin",
    "nat",
    "reward model",
    "rule",
    "scratchpad",
    "seed",
    "update",
)


def page() -> None:
    """Show the page."""
    page_heading(QUESTION, SENTENCE, WORDS)
    choices = choose_label_set()
    refresh_margins(choices)
    labelling(choices)
    training_section(choices)
    experiment_section()
    sharing_section(choices)
    if not actions.refusal() and not choices.labels.pool.is_chat:
        actions.prepare_training()
    what_to_look_at(
        "Label about twenty pairs by one clear taste, for example: always prefer the answer that shows its working."
        " Then train. Compare the agreement with your held-out labels with the agreement with the rule:"
        " a model that learns your taste need not learn the rule. Then label some pairs without looking,"
        " and see which method suffers least from these wrong labels. A repeated pair, whose sides are"
        " swapped, shows how often you agree with yourself."
    )
    cannot_show(
        "Of fifty labels ten are held out, so the agreement with them is uncertain by up to 0.31. The"
        " embedded model knows only calculator chains. Training on the English texts needs SmolLM2"
        " (`python -m lab fetch smollm2-135m`) and takes minutes on a CPU; PPO is left out there, because"
        " the pool has no task to sample from. The pools were recorded once: a person's labels compare"
        " the recorded answers, not those of the trained model."
    )
