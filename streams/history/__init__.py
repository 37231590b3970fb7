"""History: inserts the facts of `attn.facts` into ClickHouse, each exactly once (CONTRACT §6)."""
