"""GRPO of tiny policies on one CPU thread: torch alone, so that a phase starts within two seconds."""
