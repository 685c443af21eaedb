"""Import files of touchpoints, conversions and identity links."""
