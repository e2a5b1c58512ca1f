"""Training with TRL's GRPOTrainer and PEFT: on a CPU, on one GPU, or on the GPUs of one node."""
