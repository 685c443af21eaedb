"""Microsoft Advertising's UET Conversions API."""
