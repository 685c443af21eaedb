"""TikTok's Events API 2.0."""
