"""Data in, plotly `Figure` out. Nothing here shows a figure, trains, or knows a dashboard or a
notebook.
"""
