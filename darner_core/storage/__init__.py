"""Bytes on disk: records, the database, the write-ahead log, the data directory.

The only package with rocksdict. It imports nothing of ours but the errors, and must not know what a queue does with its
records.
"""
