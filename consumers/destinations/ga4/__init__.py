"""Google Analytics 4's Measurement Protocol."""
