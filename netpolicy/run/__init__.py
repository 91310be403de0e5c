"""`netpolicy run`: a command behind the firewall, without Docker.

    CMD | workload namespace --veth-- [ router namespace: the gate's rules ] --uplink-- the host, or pasta, or slirp4netns

What enters here: making and removing those namespaces (`router`, `uplink`, `hostside`), starting the command in one of them
without the means to leave it (`workload`, `confine`, `mounts`), and the course of one run (`session`). The firewall itself is the
same gate that serves containers (`netpolicy.gate.core`). docs/run.md is the guide and says what it does not hold back.
"""
