"""Look at the instrumented module models.py by attrs, pydantic, cloudpickle and coverage: {check: what is seen}."""

import asyncio
import copy
import inspect
import json
import os
import pickle
import re
import subprocess
import sys

import attrs
import cloudpickle
import coverage
from checks import described, outcome

watch = coverage.Coverage(data_file=None, branch=True, include=["*models.py"], config_file=False)
watch.start()
import models as m  # noqa: E402


def of_attrs():
    one = m.Slotted("3")
    yield "attrs: made", [repr(one), one == m.Slotted(3), outcome(m.Slotted, -1), outcome(m.Slotted, "x"), m.SEEN[:1]]
    yield "attrs: slots", [outcome(setattr, one, "other", 1)[0], sorted(m.Slotted.__slots__), hasattr(one, "__dict__")]
    yield "attrs: methods", [repr(one.doubled()), one.half, one.expensive, one.expensive, m.SEEN.count("expensive")]
    child = m.Child(2)
    yield "attrs: inherited", [repr(child), outcome(child.doubled), outcome(setattr, child, "extra", 1)[0], child < m.Child(3)]
    yield "attrs: class", [[a.name for a in attrs.fields(m.Child)], str(inspect.signature(m.Slotted)), str(inspect.signature(m.Child))]
    yield "attrs: open", [repr(m.Open(4).both()), attrs.asdict(m.Open(5))]
    yield "attrs: copies", [repr(copy.deepcopy(one)), repr(pickle.loads(pickle.dumps(one))), repr(attrs.evolve(child, extra=1))]
    yield "attrs: its methods", [(name, f.__qualname__, f.__module__) for name, f in inspect.getmembers(m.Slotted, inspect.isfunction)]


def of_pydantic():
    if m.pydantic is None:
        return
    one = m.Account(number="#3")
    yield "pydantic: made", [repr(one), one.method(1), m.SEEN[-1], one == m.Account(number=3)]
    yield "pydantic: refused", [refused(m.Account, number="x"), refused(m.Account, number=1, name="bad"), refused(setattr, one, "number", "y")]
    yield "pydantic: dumped", [one.model_dump(), one.model_dump_json(), one.doubled]
    derived = m.Derived(number=1, extra={"number": 2})
    yield "pydantic: inherited", [derived.method(2), repr(derived), derived.model_dump()]
    yield "pydantic: schema", [m.Derived.model_json_schema(mode=mode) for mode in ("validation", "serialization")]
    yield "pydantic: fields", [repr(m.Account.model_fields), sorted(m.Account.model_computed_fields), str(inspect.signature(m.Account))]
    yield "pydantic: copies", [repr(one.model_copy(update={"number": 9})), repr(pickle.loads(pickle.dumps(one))), repr(copy.deepcopy(derived))]
    yield "pydantic: call", [m.checked("1", b="2"), refused(m.checked, "x"), refused(m.checked, 1, b=0), str(inspect.signature(m.checked))]
    yield "pydantic: decorators", sorted(m.Account.__pydantic_decorators__.field_validators)


def refused(function, *args, **kwargs):
    kind, text, _ = outcome(function, *args, **kwargs)
    return kind, re.sub("https?://.*", "", text)


def of_cloudpickle():
    functions = [m.add, m.adder(5), m.Slotted.doubled, m.Slotted(2).doubled, m.values, m.waits, lambda: m.add(1)]
    yield "cloudpickle: by reference", [type(cloudpickle.loads(cloudpickle.dumps(f))).__name__ for f in functions]
    yield "cloudpickle: called", [cloudpickle.loads(cloudpickle.dumps(m.add))(3), cloudpickle.loads(cloudpickle.dumps(m.adder(1)))(1)]
    cloudpickle.register_pickle_by_value(m)
    try:
        by_value = cloudpickle.dumps([m.add, m.adder(7), m.values])
    finally:
        cloudpickle.unregister_pickle_by_value(m)
    add, inner, values = cloudpickle.loads(by_value)
    yield "cloudpickle: by value", [add(1), add.__doc__, add is not m.add, inner(1), list(values(2)), outcome(add)]
    with open("functions.pickle", "wb") as file:
        file.write(by_value)
    # As on a worker of another machine: without autoinst, and without the module.
    script = "import pickle; add, inner, values = pickle.load(open('functions.pickle', 'rb')); print(add(2), inner(2), list(values(3)))"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AUTOINST", "PYTHON"))}
    path = os.pathsep.join(entry for entry in sys.path if "site-packages" in entry)
    blocked = "import sys; sys.modules['autoinst'] = None; sys.modules['models'] = None; "
    done = subprocess.run(
        [sys.executable, "-c", blocked + script], env=environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    yield "cloudpickle: elsewhere", [done.stdout, done.stderr[-300:]]


def run_branches():
    yield "coverage: results", [
        [outcome(m.branches, n) for n in (0, 2, 12)],
        list(m.delegates(2)),
        asyncio.run(m.waits(3)),
        m.local_class(2),
        described(ValueError("x")),
    ]


def of_coverage():
    for file in watch.get_data().measured_files():
        analysis = watch._analyze(file)
        yield "coverage: lines", [sorted(analysis.executed), sorted(analysis.missing), sorted(analysis.excluded)]
        yield "coverage: branches", sorted([line, sorted(to)] for line, to in analysis.executed_branch_arcs().items())
        yield "coverage: raw arcs", sorted(analysis.arcs_executed)
        yield "coverage: missing branches", sorted([line, sorted(to)] for line, to in analysis.missing_branch_arcs().items())
        yield "coverage: numbers", [analysis.numbers.n_executed_branches, analysis.numbers.n_executed, analysis.numbers.n_missing]


def main():
    seen = {}
    for group in (of_attrs, of_pydantic, of_cloudpickle, run_branches):
        seen.update(group())
    watch.stop()
    seen.update(of_coverage())
    print(re.sub("0x[0-9a-f]+", "0x", json.dumps(seen, indent=1, default=repr)))


if __name__ == "__main__":
    main()
