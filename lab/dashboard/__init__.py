"""Streamlit pages as functions: widgets, one library call, one figure. No tensors and no maths
here; torch is never imported.
"""
