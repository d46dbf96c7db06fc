"""The memcache text protocol, in the dialects of Darner, Kestrel, Siberite and Kyoto Tycoon.

It may import what `protocols` may. It must not know the other protocols.
"""
