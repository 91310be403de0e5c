"""The door to the kernel: netlink transport, nftables, conntrack, namespaces and links.

Everything that needs CAP_NET_ADMIN lives here, and nothing else does. What may enter: code that turns a `Ruleset` or a
topology into kernel objects and reads them back. Policy decisions, DNS and daemons live elsewhere.
"""
