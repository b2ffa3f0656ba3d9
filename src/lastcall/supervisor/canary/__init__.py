"""The canary of a reload: smoke checks, what it is compared by, the procedure, the report. All but the smoke is pure."""
