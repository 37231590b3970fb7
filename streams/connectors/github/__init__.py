"""Connector of GitHub: finds deployments and runs that wait for a person, and brings the answers back."""
