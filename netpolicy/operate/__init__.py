"""What the operator's verbs (`netpolicy attach`, `apply`, `verify`, ...) are made of: a machine's networks and its gates.

What enters here: finding what can be attached (`attachable`, `docker`), the gate in the background (`homes`, `gates`), proof from
inside a network (`plug`, `inside`, `proving`, `resolvers`), and words about all of it for people (`telling`). Docker is asked
through its command line; nothing here needs it.
"""
