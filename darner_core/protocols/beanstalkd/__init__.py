"""beanstalkd's protocol, for its clients, workers and tools. A tube is a queue; a job is an item, known by its public
number.
"""
