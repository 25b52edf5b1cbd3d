"""Numbers made of numbers: statistics, diagnosis, recommendation, loss curves."""
