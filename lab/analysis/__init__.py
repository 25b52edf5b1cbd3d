"""Numbers made of numbers: statistics, recorded results, diagnosis, recommendation, loss curves,
the bandit of the derivation.
"""
