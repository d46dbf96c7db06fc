"""Kestrel's thrift service: framed binary messages, as kestrel.thrift describes them."""
