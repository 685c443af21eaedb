"""Google's Data Manager API: conversions of Google Ads, and events of Google Analytics properties."""
