"""What a client can ask for, in no protocol's words: values in, values out.

Each operation is here once, for all protocols. It may import what engines promise, `access` and `config`. It must not
know how a request is read or a reply written.
"""
