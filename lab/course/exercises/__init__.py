"""The exercises of the course: one module for each notebook, and a registry of all."""
