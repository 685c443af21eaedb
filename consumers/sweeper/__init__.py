"""The sweeper: finds what was left behind and says "look again"; makes conversions final; closes silent journeys."""
