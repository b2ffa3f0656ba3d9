"""What every package may know: errors, ASGI types, options, records. Imports nothing of ours."""
