"""HTTP requests to receivers: checked addresses, one bounded attempt, and what its answer means."""
