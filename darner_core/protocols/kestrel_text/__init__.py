"""Kestrel's own text protocol: lines and nothing else, so that a person can type it.

It may import what `protocols` may. It must not know the other protocols.
"""
