"""The canary of a reload: smoke checks, comparison, procedure, report. All but the smoke checks is pure."""
