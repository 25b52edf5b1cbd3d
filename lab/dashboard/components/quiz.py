"""A question before the answer: buttons to guess or to skip, the verdict beside them, and a cover over the
figure that answers it.
"""

from collections.abc import Callable, Sequence

import streamlit as st

from lab.dashboard.components.present import PRESENT_PARAMETERS, is_presented, room_guess

SKIP = "Skip"
_OPEN = "open quizzes"  # session key: by question, whether its answer may be seen
COVER = """
.st-key-{key} {{ position: relative; border-radius: 6px; background: repeating-linear-gradient(45deg,
  color-mix(in srgb, currentColor 7%, transparent) 0 14px,
  color-mix(in srgb, currentColor 12%, transparent) 14px 28px); }}
.st-key-{key} :not(.lab-none) {{ visibility: hidden !important; }}
.st-key-{key}::after {{ content: "{text}"; position: absolute; inset: 0;
  display: grid; place-items: center; font-size: 1.1rem; font-weight: 600; }}
"""
BUTTONS = """<style>
.st-key-quiz [data-testid="stElementContainer"] { max-width: 100%; }
.st-key-quiz [data-testid="stButtonGroup"] [role="radiogroup"] { flex-wrap: wrap; }
</style>"""  # On a narrow window the buttons take a second row.
VERDICT_WIDTH = 560  # pixels; on a narrow window the verdict stands under the buttons


def quiz(
    question: str,
    options: Sequence[str],
    verdict: Callable[[str], object],
    covers: Sequence[str] = (),
    key: str = "guess",
) -> None:
    """Ask for a prediction. After a guess, `verdict` shows its answer beside the buttons; the guess is in
    the URL.

    `covers` are the keys of the elements that answer the question. Until a visitor has guessed or
    skipped they are hidden, from keyboard and screen readers too; in a room with a presenter until the
    presenter reveals the answer, which `verdict` waits for as well. An address that names a state of
    the page shows that state, so nothing is covered then. Must be called before the page writes into
    the URL.
    """
    seen = st.session_state.setdefault(_OPEN, {})
    seen.setdefault(question, bool({*st.query_params} - {key, *PRESENT_PARAMETERS}))
    st.markdown(question)
    st.html(BUTTONS)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="quiz"):
        guess = st.segmented_control(
            question, (*options, SKIP), key=key, bind="query-params", label_visibility="collapsed"
        )
        guess, waits = room_guess(question, options, guess)
        if guess and guess != SKIP:
            with st.container(width=VERDICT_WIDTH, gap="xsmall", key="verdict"):
                verdict(guess)
    if waits is None:
        seen[question] = seen[question] or guess is not None
    else:
        seen[question] = not waits
    if covers and not seen[question]:
        until = "the answer is revealed" if waits or is_presented() else "you guess or skip"
        st.caption(f"The figure that answers this is covered until {until}.")
        rules = (COVER.format(key=cover, text=f"Covered until {until}") for cover in covers)
        st.html(f"<style>{''.join(rules)}</style>")
