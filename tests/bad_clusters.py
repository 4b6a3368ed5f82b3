"""The program of Django Q2, whose broker is a database or Redis, as tests/bad_rows.py has others."""

from __future__ import annotations

from dataclasses import replace

from tests.bad_rows import Case

DJANGO_Q2 = Case(
    "databases",
    {
        "settings.py": """
        import os
        SECRET_KEY = "x"
        USE_TZ = True
        INSTALLED_APPS = ["django_q"]
        DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
        DATABASES = {
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3", "OPTIONS": {"timeout": 60}}
        }
        Q_CLUSTER = {"name": "mail", "workers": 1, "timeout": 600, "retry": 7000, "poll": 0.1, "guard_cycle": 0.1}
        Q_CLUSTER |= {"redis": os.environ["REDIS"]} if "REDIS" in os.environ else {"orm": "default"}
        """,
        "shop.py": """
        from django_q.tasks import async_task
        from notes import note
        from refused import tried

        def job(name, *values, value=None):
            note(name)

        def refuse(name):
            note(name)
            tried(lambda value: async_task("shop.job", "refused", value, task_name="refused"))
            async_task("shop.job", "last", task_name="last")  # after those of them that are kept
        """,
    },
    "django-admin migrate",
    """
    import pickle
    import django
    from mangle import *

    django.setup()
    from django.db import connection
    from django_q.brokers import get_broker
    from django_q.conf import Conf
    from django_q.core_signing import dumps
    from django_q.signing import SignedPackage
    from django_q.tasks import async_task
    import shop

    class Kept:  # in place of a serialiser
        @staticmethod
        def dumps(payload):
            return payload

    class Pickled:
        dumps = staticmethod(pickle.dumps)

    broker = get_broker()

    def put(value):
        broker.enqueue(SignedPackage.dumps(value))

    async_task("shop.job", "mangled", task_name="mangled", group="g")
    ((number, good),) = broker.dequeue()
    if number:
        broker.delete(number)
    good = good.encode() if isinstance(good, str) else good
    for payload in wrong(good):
        if Conf.ORM is None:
            broker.enqueue(payload)
        else:
            with connection.cursor() as cursor:
                row = ("mail", payload, "2026-01-01 00:00:00")
                cursor.execute("INSERT INTO django_q_ormq (key, payload, lock) VALUES (%s, %s, %s)", row)
    value = SignedPackage.loads(good)
    for payload in (as_json({"a": "b"}), pickle.dumps(value)[:-9], pickle.dumps(value)[9:], b"cmissing\\nName\\n."):
        broker.enqueue(dumps(payload, key=Conf.SECRET_KEY, salt=Conf.PREFIX, serializer=Kept))
    broker.enqueue(dumps(value, key="another", salt=Conf.PREFIX, serializer=Pickled))
    for other in (None, [1]):
        put(other)
    for other in wrong_inside(value):
        put(other)
    for func in ("", "\u00e9", "shop", "shop.nothing", "os.path.join", ".", b"\\xff", shop.job, Touchy(), Touchy):
        put({**value, "func": func})
    for junk in (*JUNK, 10**400):
        put({**value, "args": junk, "kwargs": junk})
        put({**value, "args": ("mangled",), "traceparent": junk, "cluster": junk, "name": junk})
    for options in ({"timeout": "7"}, {"sync": True}, {"chain": 7}, {"hook": 7}, {"save": Touchy()}):
        put({**value, **options})
    async_task("shop.job", "large", "x" * LARGE, task_name="large")
    async_task("shop.job", "touchy", Touchy(), Text("abc"), task_name="touchy")
    async_task("shop.refuse", "refuse", task_name="refuse")
    """,
    "django-admin qcluster",
    (
        "SELECT id, name, func, hook, started, stopped, success, 'group', attempt_count, cluster FROM django_q_task",
        "SELECT key, payload, lock FROM django_q_ormq",
    ),
    "SELECT 1 FROM django_q_task WHERE name = 'last'",
    by="SIGTERM",
    variables={"DJANGO_SETTINGS_MODULE": "settings"},
    actions=("shop#nothing", "django_q.worker#shop"),  # the second is a module
    # How often what could not be read is not told by a worker that dies soon after.
    unavailable=(
        "django-q2.yaml:7: enqueued_at unavailable ",
        "django-q2.yaml:7: job_id unavailable 1 time: no key 'id'\n",
    ),
)
DJANGO_Q2_REDIS = replace(DJANGO_Q2, redis=True)
CASES = {"django-q2": DJANGO_Q2, "django-q2 by redis": DJANGO_Q2_REDIS}
