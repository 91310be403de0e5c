"""Drives the real Claude Code client, offline: a scripted Messages API, the client's installation, servers for it to talk to."""
