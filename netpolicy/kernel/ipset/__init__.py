"""The enforcer over ipset and iptables, for kernels without nf_tables (docs/backends.md).

What may enter: what makes sets and iptables' rules out of a ruleset, and what reads them back.
"""

from netpolicy.kernel.ipset.enforcer import IpsetEnforcer

__all__ = ["IpsetEnforcer"]
