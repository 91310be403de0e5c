"""What agents and people touch: configuration, identity, the MCP server, the command line."""

__version__ = "0.1.0"
