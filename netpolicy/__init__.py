"""An egress firewall: allowlists of names and ranges in, verdicts and packets out. Knows no Docker and no MCP."""
