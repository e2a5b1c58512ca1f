"""Agents that ask language models: what they are shown, how they are called, what is made of their replies."""
