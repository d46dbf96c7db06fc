"""The memcache text protocol, in the dialects of Darner, Kestrel, Siberite and Kyoto Tycoon."""
