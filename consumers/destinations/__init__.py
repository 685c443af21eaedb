"""Destinations as a library: build, batch and send conversions to ad platforms, and classify the response."""
