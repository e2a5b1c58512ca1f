"""Agents: they know questions and answers, not jobs."""
