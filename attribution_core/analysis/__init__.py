"""Whole analyses of a table: models, options, reports, diagnostics, insights."""
