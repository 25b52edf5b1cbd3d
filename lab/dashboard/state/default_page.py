"""The page at the address without a path."""

DEFAULT_PAGE = "play"
DEFAULT_PAGE_URL = "start"
"""The URL path by which Streamlit knows the default page."""
