"""What a program can see of the product, one question each: prints {question: whether all is as in plain Python}."""

import copy
import inspect
import json
import pickle
import traceback
import types

import jobs

before = jobs.noop


class Plain:
    """The same as jobs.Worker, of which no product is told."""

    def deep(self, n=0):
        try:
            return self.deep(n + 1)
        except RecursionError:
            return n


import instrumented  # noqa: E402

job = instrumented.product.job
for name in ("perform", "caller", "deep"):
    setattr(jobs.Worker, name, job(getattr(jobs.Worker, name)))
jobs.generator = job(jobs.generator)


def attempt(question):
    try:
        return bool(question())
    except Exception:
        return False


def frames_of_traceback():
    try:
        jobs.raising(1)
    except ValueError as error:
        return len(traceback.extract_tb(error.__traceback__)) == 2


def outer():
    return jobs.Worker().caller()


QUESTIONS = {
    "the function is the same object": lambda: jobs.noop is before,
    "a reference taken before is seen": lambda: jobs.REGISTRY[0] is jobs.noop,
    "it is a plain function": lambda: type(jobs.noop) is types.FunctionType,
    "pickle gives it back": lambda: pickle.loads(pickle.dumps(jobs.noop)) is jobs.noop,
    "a copy is itself": lambda: copy.deepcopy(jobs.noop) is jobs.noop,
    "a bound method can be pickled": lambda: pickle.loads(pickle.dumps(jobs.Worker().perform))(3) == 3,
    "its signature": lambda: str(inspect.signature(jobs.noop)) == "(n)",
    "its code's name": lambda: jobs.noop.__code__.co_name == "noop",
    "its source": lambda: inspect.getsource(jobs.noop).startswith("def noop"),
    "a generator function is one": lambda: (
        inspect.isgeneratorfunction(jobs.generator) and list(jobs.generator(2)) == [2]
    ),
    "the caller is one frame up": lambda: outer() == "outer",
    "frames of a traceback": frames_of_traceback,
    "depth of recursion": lambda: jobs.Worker().deep() >= Plain().deep() * 0.95,
}
print(json.dumps({name: attempt(question) for name, question in QUESTIONS.items()}))
