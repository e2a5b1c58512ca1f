"""Two-length arithmetic chains modulo 10: a task, and a tiny policy, on which the strategy of training matters."""
