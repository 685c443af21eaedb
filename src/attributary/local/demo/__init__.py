"""`attributary demo`: the whole pipeline on this machine, on real input, checked at the end.

Contract: nothing here bypasses the real code: events go through the publishing client, the broker, the stages as
processes, Postgres; what is shown was read from the results topic and the store. It ends with exit code 0 only if every
promise held.
"""
