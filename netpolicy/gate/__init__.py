"""The gate: the daemon that holds policies in force on interfaces, and the way to talk to it.

`core.Gate` is the whole of it without a socket (`netpolicy run` embeds it); `server` puts a control socket in front, `client` is
the other end, `protocol` the typed values that cross, `relay` carries the bytes through ``docker exec``. What may enter: keeping
attachments in force across restarts. What may not: how packets are filtered (`netpolicy.kernel`), how a name is judged
(`netpolicy.dns`), what a policy means (`netpolicy.policy`).

Importing this package imports nothing, so that `relay` starts quickly.
"""
