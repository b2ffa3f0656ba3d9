"""The stop as tables: ladder, escalation of signals, policies, report. Pure: no clock, loop, socket or log."""
