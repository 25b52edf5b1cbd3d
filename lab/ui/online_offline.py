"""Page Online and offline: what the policy writes, and what its data still knows of it."""

import streamlit as st

from lab.figures.drift import drift
from lab.figures.palette import METHOD_NAMES
from lab.results import load_result

QUESTION = "Does the data still describe the policy?"
SENTENCE = ("DPO learns from pairs that were sampled once, before training. GRPO and online DPO sample from the policy as it is now. As the policy "
            "changes, look at how much of what it writes stands in the fixed data at all.")
MODES = {"Offline: a fixed data set": ("dpo",), "Online: samples of the present policy": ("online_dpo", "grpo"), "Both": ("dpo", "online_dpo", "grpo")}


def page() -> None:
    """The page from top to bottom."""
    st.title(QUESTION, anchor=False)
    st.markdown(SENTENCE)
    guess = st.segmented_control("Before you look: of the wrong completions that a trained DPO policy writes, how many stand in its data as rejected?",
                                 ("most", "some", "hardly any"), key="guess")
    st.session_state.setdefault("mode", list(MODES)[-1])
    mode = st.segmented_control("Shown", list(MODES), key="mode", required=True)
    table = load_result("drift")
    theme = "dark" if st.context.theme.type == "dark" else "light"
    st.plotly_chart(drift(table["rows"], MODES[mode], theme), config={"displayModeBar": False}, key="drift")
    rows = {row["method"]: row for row in table["rows"]}
    st.markdown(sentence(rows))
    if guess:
        known = rows["dpo"]["wrong_covered"]
        st.markdown(f"You said {guess}. Measured: {share(known[0])} before training and {share(known[-1])} after {rows['dpo']['step'][-1]} updates.")
    st.caption(f"`{table['command']}` on {table['device']}; {table['seeds']} seeds, bars are 95 % intervals; {table['prompts']} prompts of the pairs, "
               "one completion each.")
    with st.expander("What to look at"):
        st.markdown("The dashed line on the right: mistakes of the policy that its data names as mistakes. Where it is low, an offline method cannot be "
                    "told that they are wrong; an online method is told at the next update. The solid line stays where it is: a prompt has few right "
                    "completions, so the data still knows them.")
    with st.expander("What this cannot show"):
        st.markdown("Completions are compared letter by letter, which only a task with short exact answers allows. On open text nearly nothing that a "
                    "policy writes stands in any data set, before training or after.")


def share(value: float | None) -> str:
    """A share in percent, or a dash where nothing was there to count."""
    return "–" if value is None else f"{value:.0%}".replace("%", " %")


def sentence(rows: dict) -> str:
    """What the figure says, in numbers."""
    dpo = rows["dpo"]
    others = ", ".join(f"{METHOD_NAMES[m]} {rows[m]['gold/accuracy'][-1]:.2f}" for m in ("online_dpo", "grpo"))
    return (f"DPO: the chosen completions of its own training pairs go from {dpo['logps/chosen'][0]:.1f} to {dpo['logps/chosen'][-1]:.1f} nats, the "
            f"rejected ones from {dpo['logps/rejected'][0]:.1f} to {dpo['logps/rejected'][-1]:.1f}. Of its wrong completions "
            f"{share(dpo['wrong_covered'][0])} stood in the data at the start, {share(dpo['wrong_covered'][-1])} at the end. Right on these prompts after "
            f"{dpo['step'][-1]} updates: DPO {dpo['gold/accuracy'][-1]:.2f}, {others}.")
