"""What can be configured, in a file, in tables or on the command line, with the place where each value was set.

It may import the words of `access`. It must not know what an option is used for.
"""
