"""The experiment's record.

An event log on SQLite, its in-memory twin, and the JSON form of events.
"""
