"""The experiment's record: an event log on SQLite, its in-memory twin, and the JSON form of events."""
