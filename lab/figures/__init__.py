"""Data in, plotly `Figure` out. Nothing here shows a figure, trains, or knows a dashboard or a notebook."""

from lab.figures.curves import RunCurves, training_curves
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES, THEMES

__all__ = ["METHOD_COLOURS", "METHOD_NAMES", "THEMES", "RunCurves", "training_curves"]
