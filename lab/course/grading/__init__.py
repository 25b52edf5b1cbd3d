"""Grading: the learners' functions run again, each learner's in a process without the lab."""
