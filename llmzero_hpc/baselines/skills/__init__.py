"""The skill-based agent (appendix B.7): a language model that plans by itself, in one conversation with tools."""
