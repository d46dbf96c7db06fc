"""Where queues live: an engine for each kind of place.

`contract` and `large_items` say what every engine promises. They may import the options of queues in `config`, and must
not know any engine, nor clients, their requests or their rights. Each engine is a package of its own.
"""
