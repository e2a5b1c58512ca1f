"""What searches have shown: the structure of strategies, compute against score, methods against each other. Pure."""
