"""What can be configured in the file or on the command line, and where each value was set.

It may import `access`, whose words stand in the file. It must not know what an option is used for.
"""
