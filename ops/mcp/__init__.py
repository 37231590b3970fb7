"""The MCP server `attn mcp` (CONTRACT §8): tools with which an agent asks people in attn and reads their answers."""
