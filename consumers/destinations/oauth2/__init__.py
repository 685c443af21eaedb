"""OAuth 2: short-lived access tokens for destinations, from a refresh token or a service account's key."""
