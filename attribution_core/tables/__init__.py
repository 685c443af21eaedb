"""Data as people hold it (paths, events, experiments), checked and read into journeys."""
