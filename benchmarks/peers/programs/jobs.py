"""Jobs that do next to nothing, so that what is measured is what is around them."""

import sys
import time


def noop(n):
    return n


def step(n):
    return n


def events(n):
    step(n)
    step(n)
    step(n)
    return n


def raising(n):
    raise ValueError(n)


def hanging(n):
    time.sleep(600)


def generator(n):
    yield n


class Worker:
    def perform(self, n):
        return n

    def caller(self):
        return sys._getframe(1).f_code.co_name

    def deep(self, n=0):
        try:
            return self.deep(n + 1)
        except RecursionError:
            return n


REGISTRY = [noop]  # a reference from before anybody could replace the name
