"""The nftables enforcer: one table ``inet netpolicy``, written over raw netlink, changed only in place.

`NftablesEnforcer` is the way in. The other modules turn values into messages (`layout`, `chains`, `ranges`, `learning` over
`messages` and `expressions`), read them back (`reading`) and notice what others change (`drift`). docs/enforcement.md says why.
"""

from netpolicy.kernel.nftables.enforcer import NftablesEnforcer

__all__ = ["NftablesEnforcer"]
