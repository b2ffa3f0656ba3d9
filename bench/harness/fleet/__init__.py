"""`fleet`: workers under a parent: what two are worth, and how fast they are replaced without a lost request."""
