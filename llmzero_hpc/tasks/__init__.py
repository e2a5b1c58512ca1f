"""Tasks: rows of a dataset and the reward of a response."""
