"""Put this folder on PYTHONPATH and every Python started with it is instrumented by autoinst.

    PYTHONPATH=/path/to/sitecustomize_example python worker.py

The interpreter imports `sitecustomize` by itself before it runs the program. This one takes its own folder off
`sys.path` again, starts autoinst, and then imports the sitecustomize the program would have had without it, so that
afterwards everything looks as if this file had never been there. PYTHONPATH stays, so children are instrumented too.

It says nothing where autoinst is not installed or Python is too old for it (it parses on any Python).
"""

import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))
_checkout = os.path.dirname(_here)

sys.path[:] = [_entry for _entry in sys.path if os.path.abspath(_entry) != _here]
for _entry in list(sys.path_importer_cache):
    if isinstance(_entry, str) and os.path.abspath(_entry) == _here:  # type: ignore[redundant-expr]
        del sys.path_importer_cache[_entry]

if sys.version_info >= (3, 10):
    # A relative entry would not be found any more by the children of a program that changes its directory.
    _entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    _absolute = [_here if _entry and os.path.abspath(_entry) == _here else _entry for _entry in _entries]
    if _absolute != _entries:
        os.environ["PYTHONPATH"] = os.pathsep.join(_absolute)
    try:
        try:
            import autoinst.startup
        except ModuleNotFoundError as _error:
            if _error.name != "autoinst":
                raise
            # Not installed: in a checkout of the repository the package lies beside this folder.
            if os.path.isfile(os.path.join(_checkout, "autoinst", "startup.py")):
                sys.path.insert(0, _checkout)
                try:
                    import autoinst.startup
                finally:
                    sys.path.remove(_checkout)
                    sys.path_importer_cache.pop(_checkout, None)
        if "autoinst.startup" in sys.modules:
            autoinst.startup.start()
    except Exception as _error:  # a broken installation must not keep the program from starting
        sys.stderr.write("autoinst: not active: %s: %s\n" % (type(_error).__name__, _error))

# The program's own sitecustomize, if there is one, takes this module's place. If there is none, the ImportError
# goes to the interpreter, which expects just that.
del sys.modules["sitecustomize"]
import sitecustomize  # type: ignore[import-not-found]
