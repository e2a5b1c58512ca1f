"""Methods that LLMZero is compared with: the same tick, jobs, budgets and test score, with another who proposes."""
