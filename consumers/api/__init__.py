"""The read API: what is stored, over HTTP, for one tenant a key; `attributary serve`.

It only reads the store. Work (train, analyze) goes as a job to `attribution.jobs.v1`, as the command line sends it.
"""
