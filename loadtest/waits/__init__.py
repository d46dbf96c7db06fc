"""How long one client waits beside what others do."""
