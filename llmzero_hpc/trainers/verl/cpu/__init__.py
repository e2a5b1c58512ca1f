"""VeRL on CPUs: a platform of its own, and rollouts by transformers where there is no vLLM."""
