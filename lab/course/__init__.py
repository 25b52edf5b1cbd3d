"""What the notebooks use: checks for the learner's own functions, predictions, figures, sliders and
runs.

check(my_dpo_loss)                       compare with the lab on random inputs; the likely mistake
is named guess = predict("Which …?", ("a", "b"))  ask before a run; outcome(guess, "a", "…") after
it show(figure, "in words")                 a figure that JupyterLab draws and a static viewer shows
as a picture explore(draw, "in words", beta=(…))      the same with a slider for each knob
train("dpo", beta=0.1)                   a real run, in a folder that the dashboard lists;
scored_by=my_reward puts a reward of your own in
"""

from lab.course.check import check
from lab.course.run_from_notebook import curves, fast, train
from lab.course.widgets import explore, outcome, predict, show

__all__ = ["check", "curves", "explore", "fast", "outcome", "predict", "show", "train"]
