"""Kestrel's thrift service: framed binary messages, as kestrel.thrift describes them.

It may import what `protocols` may; `messages` alone imports the thrift library. It must not know the other protocols.
"""
