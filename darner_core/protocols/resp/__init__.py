"""RESP, the protocol of Redis and Disque, for clients that use either as a queue. A job of Disque is an item, and so is
an element of a list.
"""
