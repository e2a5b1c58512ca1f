"""LLMZero for academic clusters: tree search over GRPO training trajectories (arXiv 2606.18388)."""

__version__ = "0.1.0"
