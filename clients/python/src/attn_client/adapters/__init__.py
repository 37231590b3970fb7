"""Adapters for frameworks of agents. Each needs its framework, which the application installs."""
