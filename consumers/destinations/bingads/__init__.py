"""Microsoft Advertising's offline conversions, by its Bing Ads API."""
