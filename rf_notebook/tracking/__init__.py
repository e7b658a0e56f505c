"""Mirrors of the event log in other people's tools; never read back, never fatal."""
