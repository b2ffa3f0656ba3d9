"""What every room may know: errors, ASGI types, options, records. Imports nothing of ours."""
