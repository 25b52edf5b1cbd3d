"""The claims of the article, each with its verdict and the numbers that decide it."""
