"""The catalogue of reports: one definition each, from which commands, HTTP, the page and the docs are made."""
