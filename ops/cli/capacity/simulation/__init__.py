"""A simulation of partitions, workers and edges as queues, with workspaces of skewed sizes and bursts."""
