"""Reddit's Conversions API."""
