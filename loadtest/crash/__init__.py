"""Harnesses that kill the server or refuse its writes under load, and check every promise afterwards."""
