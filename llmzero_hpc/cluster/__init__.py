"""Clusters: they know jobs, not rewards."""
