"""Two buttons under a pair of answers, which write a label for each press: page Taste for a notebook."""

import ipywidgets
from IPython.display import display

from lab.course.widgets import WIDGET_MIME
from lab.taste.labels import LabelSet, uncounted_text
from lab.taste.next_pair import answer_question, next_question


def label_by_hand(labels: LabelSet) -> None:
    """Display the next pair of a label set with a button for each answer, Skip and Undo; a press writes
    the label at once. Without a kernel the text says what the buttons would do.
    """
    text = (
        "Two answers and the buttons: prefer A, prefer B, skip, undo. Every press writes a label."
    )
    box = label_box(labels)
    display({WIDGET_MIME: box._repr_mimebundle_()[WIDGET_MIME], "text/plain": text}, raw=True)


def label_box(labels: LabelSet) -> ipywidgets.VBox:
    """Return the widget of `label_by_hand`: a text, and the buttons A, B, Skip and Undo."""
    shown = ipywidgets.Textarea(
        disabled=True, layout={"width": "100%", "height": "9em"}, description=""
    )
    buttons = {
        name: ipywidgets.Button(description=name)
        for name in ("Prefer A", "Prefer B", "Skip", "Undo")
    }

    def refresh() -> None:
        asked = next_question(labels)
        note = uncounted_text(labels)
        shown.value = (f"{note}\n\n" if note else "") + (
            "Every pair is labelled or skipped."
            if asked is None
            else f"{len(labels.pairs())} labels. {asked.pair.prompt}\n\nA  {asked.pair.answers[asked.left]}"
            f"\n\nB  {asked.pair.answers[1 - asked.left]}"
        )

    def press(button: ipywidgets.Button) -> None:
        asked = next_question(labels)
        if button is buttons["Undo"]:
            labels.undo()
        elif asked is not None and button is buttons["Skip"]:
            labels.skip(asked.pair, asked.turn)
        elif asked is not None:
            answer_question(labels, asked, left=button is buttons["Prefer A"])
        refresh()

    for button in buttons.values():
        button.on_click(press)
    refresh()
    return ipywidgets.VBox([shown, ipywidgets.HBox(list(buttons.values()))])
