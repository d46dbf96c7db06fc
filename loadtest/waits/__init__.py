"""Programs that measure how long one client waits while others keep the server busy."""
