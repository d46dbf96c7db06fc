"""Bytes on disk: `records` defines them, `storage` reads and writes them, by table, for the queues' engine.

`directory` looks after the files beside the database. `opening` opens RocksDB, `rocks` is the open database. `wal`,
`manifest` and `encoding` read RocksDB's own files without it. This is the only package with rocksdict. It imports
nothing of ours but the errors and small helpers, and must not know what a queue does with its records.
"""
