"""Process `attn deliver`: posts decisions to the HTTP endpoints that asks name (CONTRACT §7)."""
