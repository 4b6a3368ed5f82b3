import shop, os, sys
import autoinst
for n in range(4):
    try: shop.Mailer("mail").perform(n, note="x" * (3000 if n == 1 else 3))
    except Exception: pass
shop.bare()
with autoinst.monitor("Reports#nightly") as t:
    t.set_tags({"region": "eu", "n": 1, "f": 1.5, "on": True, "none": None})
    with autoinst.instrument("query.sql", title="SELECT", body="SELECT 1"):
        pass
