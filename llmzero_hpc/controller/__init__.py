"""The controller: one reconciliation at a time between the tree, the cluster and the agents."""
