"""Statistical inference: intervals, multiple testing, meta-analysis, calibration by experiments."""
