"""Settles facts of the service that are not documented, on a real store.

In: a bare session, customers and attributes that the user names. Out: facts, each with its value
and how it was seen. Requests go out one after the other, because their statuses and headers are
the answers. Only the named values are written to, and what they held is put back.

Order of the modules, from the bottom: sizes, facts and answers, which send nothing; wire, which
sends and counts; restore, which keeps the state and puts it back; target, the named values; reads
and writes, the questions; run, their order. May import core, errors and the transport's Protocol.
"""
