"""Kestrel's own text protocol: lines and nothing else, so that a person can type it."""
