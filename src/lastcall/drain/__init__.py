"""The stop ladder as a table, the ledger of running work, the report. Pure: ``(state, census, now) -> actions``."""
