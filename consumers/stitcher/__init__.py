"""The stitcher: touchpoints, conversions and identity links in; journeys, versions and commands out.

Its deciding write is one Postgres transaction a batch; the commands that follow only say "look again".
"""
