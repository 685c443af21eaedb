"""Splitting a budget over channels with response curves from experiments, with an honest promise."""
