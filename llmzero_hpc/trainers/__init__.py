"""Trainers: they turn a configuration into a command, and know metrics, checkpoints and keys."""
