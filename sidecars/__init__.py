"""Containers, networks, volumes and images of instances. The only package that talks to Docker."""
