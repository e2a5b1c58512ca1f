"""The search: pure decisions over a tree of training phases. No I/O, no clock, no other room of the house."""
