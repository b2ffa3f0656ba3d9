"""The scenarios, one module each: what is asked of a server, why, and how it is judged."""
