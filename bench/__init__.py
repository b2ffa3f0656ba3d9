"""The benchmark of lastcall and its peers."""
