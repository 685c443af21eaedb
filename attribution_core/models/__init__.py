"""The attribution models: credits of single journeys, and totals of channels."""
