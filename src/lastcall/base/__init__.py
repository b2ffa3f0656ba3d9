"""What every room may know: errors, ASGI types, option dataclasses, records. Imports nothing of ours."""
