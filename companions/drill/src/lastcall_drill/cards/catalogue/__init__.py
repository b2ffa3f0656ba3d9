"""The cards that come with lastcall: one TOML file each, and their applications."""
