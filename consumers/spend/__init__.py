"""Spend: reports of ad platforms are read, matched to credit, and set beside it: a library."""
