"""The Streamlit dashboard: state, components, pages. No tensors."""
