"""nf_tables over raw netlink."""
