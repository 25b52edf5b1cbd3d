"""The documentation site: live figures without a server, and the notebooks as pages."""
