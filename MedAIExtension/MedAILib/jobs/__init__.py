"""Work as values: a task runs a request within a context, here or in a worker process."""
