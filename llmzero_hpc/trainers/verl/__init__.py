"""Training with VeRL 0.9.1: GRPO with LoRA, FSDP2 and vLLM on the GPUs of one or several machines, or on CPUs."""
