"""What the notebooks import: checks of exercises, predictions, figures, sliders and training runs."""
