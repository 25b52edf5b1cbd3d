"""Plotly figures, made from plain data."""
