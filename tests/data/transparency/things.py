"""Callable objects under a rule."""

import functools


def add(a, b):
    return a + b


class Worker:
    """An object that is called."""

    def __call__(self, n=1):
        """Work."""
        return n


job = functools.partial(add, 1)
worker = Worker()


def by_partial():
    return job(2)


def by_worker():
    return worker(2)
