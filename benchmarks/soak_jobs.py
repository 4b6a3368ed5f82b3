"""The workers of benchmarks/soak.py: soak_jobs.py loop|threads|forks. Each job notes when it begins and ends.

A note is a line of the file of its process in SOAK_TRUTH, so that what ran is known without autoinst, killed or not.
"""

import os
import random
import sys
import threading
import time

TRUTH = os.environ.get("SOAK_TRUTH", "")
descriptors = {}
LETTERS = str.maketrans("0123456789", "ghijklmnop")


def fresh():
    """Return a new name, without digits: some thirteen of them could be a card's number, and would be filtered."""
    return os.urandom(8).hex().translate(LETTERS)


def note(sign, name):
    pid = os.getpid()
    if pid not in descriptors:
        path = os.path.join(TRUTH, f"{pid}-{time.time_ns()}")
        descriptors[pid] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptors[pid], f"{sign}{name}\n".encode())


def step(name):
    return len(name)


def work(name):
    note("+", name)
    step(name)
    extra(name)
    time.sleep(random.random() * 0.02)
    note("-", name)


def extra(name):
    return name


def loop():
    prefix = fresh()
    number = 0
    while True:
        work(f"{prefix}-{number}")
        number += 1


def threads():
    for _ in range(3):
        threading.Thread(target=loop).start()
    loop()


def forks():
    while True:
        pid = os.fork()
        if not pid:
            work(fresh())
            os._exit(0)
        os.waitpid(pid, 0)
        time.sleep(0.05)


if __name__ == "__main__":
    import soak_jobs  # the module that rules name

    getattr(soak_jobs, sys.argv[1])()
