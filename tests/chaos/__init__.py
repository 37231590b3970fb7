"""attn under faults: a seeded harness that breaks the real stack and compares it with a model (docs/reliability.md)."""
