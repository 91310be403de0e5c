"""The DNS gate of one attachment: answers allowed names, opens the kernel for what it answered, and says no to the rest.

`core` decides over bytes and a clock and opens nothing; `service` drives it (upstreams, kernel, cache); `listeners` holds the
sockets. What may enter: reading, judging and writing DNS messages. What may not: what a policy means (`netpolicy.policy`).
"""
