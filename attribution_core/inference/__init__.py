"""How sure a number is: intervals, tests, calibration by experiments."""
