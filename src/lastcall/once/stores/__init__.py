"""The stores, one module each; ``store_from_url`` finds the one of a URL."""
