"""Where queues live: an engine for each kind of place."""
