// Everything here is an extra: without it the pages work, but for live updates, keys, suggestions and what the pointer does in charts.
"use strict";
(() => {
  const main = document.getElementById("main");
  const search = document.getElementById("q");
  const list = document.getElementById("suggestions");
  const keys = document.getElementById("keys");

  // -- live: on a change the page is fetched anew, and only what differs is put in place ---------------------------

  const keyOf = (node) => (node.nodeType === 1 ? node.id : "");

  function alike(a, b) {
    return a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);
  }

  function morph(old, made) {
    if (old.nodeType !== 1) {
      if (old.nodeValue !== made.nodeValue) old.nodeValue = made.nodeValue;
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!made.hasAttribute(name) && name !== "open" && name !== "class") old.removeAttribute(name);
    }
    for (const { name, value } of [...made.attributes]) {
      if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    if (old !== document.activeElement || !("value" in old)) children(old, made);
  }

  function children(old, made) {
    const known = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
    const wanted = new Set([...made.children].map((child) => child.id).filter(Boolean));
    let at = old.firstChild;
    for (const child of [...made.childNodes]) {
      // What is gone goes first, so that what stays need not be moved: moving it would take the focus from it.
      while (at && keyOf(at) && !wanted.has(keyOf(at))) at = drop(at);
      const kept = keyOf(child) && known.get(keyOf(child));
      if (kept) {
        if (kept !== at) old.insertBefore(kept, at);
        else at = at.nextSibling;
        morph(kept, child);
      } else if (at && !keyOf(child) && alike(at, child)) {
        const next = at.nextSibling;
        morph(at, child);
        at = next;
      } else {
        const fresh = document.importNode(child, true);
        if (fresh.nodeType === 1 && fresh.id) fresh.classList.add("fresh");
        old.insertBefore(fresh, at);
      }
    }
    while (at) at = drop(at);
  }

  function drop(node) {
    const next = node.nextSibling;
    node.remove();
    return next;
  }

  let updating = false;
  let again = false;
  async function update() {
    if (updating) {
      again = true;
      return;
    }
    updating = true;
    again = false;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, credentials: "same-origin" });
      if (answer.ok) {
        const made = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
        const focused = document.activeElement;
        if (made) morph(main, made);
        if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
      }
    } catch {
      // The server is away; the event source says so and comes back by itself.
    }
    setTimeout(() => {
      updating = false;
      if (again && source) update();
    }, 700);
  }

  let source = null;
  const button = document.getElementById("live-button");
  function live(on) {
    if (!button || main.dataset.live !== "yes") return;
    document.getElementById("live").hidden = false;
    button.setAttribute("aria-pressed", String(on));
    button.textContent = on ? "Live" : "Not live";
    if (source) source.close();
    source = null;
    if (!on) return;
    source = new EventSource("/live");
    source.addEventListener("hello", (event) => {
      if (event.data !== main.dataset.version) update();
    });
    source.addEventListener("change", () => {
      if (document.visibilityState === "visible") update();
      else again = true;
    });
  }
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible" && again && source) update();
  });
  function toggle() {
    live(!source);
    if (source) update(); // what happened meanwhile
  }
  button?.addEventListener("click", toggle);
  if (!new URLSearchParams(location.search).has("before")) live(true);
  setInterval(() => {
    if (source && document.visibilityState === "visible") update();
  }, 30000);

  // -- charts: what a bar stands for is told at once, and a stretch that is dragged over is looked at closer ----------

  const tip = Object.assign(document.createElement("div"), { id: "tip", hidden: true });
  const zoom = Object.assign(document.createElement("div"), { id: "zoom", hidden: true });
  tip.setAttribute("aria-hidden", "true");
  document.body.append(tip, zoom);
  const texts = new WeakMap();
  let from = null;

  function textOf(target) {
    for (let shape = target; shape.nodeName !== "svg"; shape = shape.parentNode) {
      const title = [...shape.children].find((child) => child.nodeName === "title");
      if (title) {
        texts.set(shape, title.textContent);
        title.remove(); // the browser would show it once more, later
      }
      if (texts.has(shape)) return texts.get(shape);
    }
    return "";
  }

  function place(event, text) {
    tip.textContent = text;
    tip.hidden = false;
    const left = Math.min(event.clientX + 12, window.innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(left, 8)}px`;
    tip.style.top = `${Math.max(event.clientY - tip.offsetHeight - 10, 8)}px`;
  }

  main.addEventListener("pointermove", (event) => {
    const text = event.target instanceof Element && event.target.closest(".plot > svg") && textOf(event.target);
    if (text && !from) place(event, text);
    else tip.hidden = true;
    if (!from) return;
    const box = from.plot.getBoundingClientRect();
    const [a, b] = [from.x, Math.min(Math.max(event.clientX, box.left), box.right)].sort((x, y) => x - y);
    zoom.hidden = b - a < 4;
    Object.assign(zoom.style, { left: `${a}px`, width: `${b - a}px`, top: `${box.top}px`, height: `${box.height}px` });
  });
  main.addEventListener("pointerleave", () => (tip.hidden = true));
  document.addEventListener("scroll", () => (tip.hidden = true), { passive: true });

  main.addEventListener("pointerdown", (event) => {
    const plot = event.target instanceof Element && event.target.closest(".plot[data-since] > svg");
    if (!plot || event.button || event.pointerType === "touch") return;
    from = { plot, x: event.clientX };
    event.preventDefault();
  });
  document.addEventListener("pointerup", (event) => {
    const start = from;
    from = null;
    zoom.hidden = true;
    if (!start || Math.abs(event.clientX - start.x) < 8) return;
    const box = start.plot.getBoundingClientRect();
    const { since, until } = start.plot.parentElement.dataset;
    const at = (x) => {
      const share = Math.min(Math.max((x - box.left) / box.width, 0), 1);
      return new Date(+since + share * (until - since)).toISOString().slice(0, 19) + "Z";
    };
    const address = new URL(location.href);
    for (const name of ["range", "before"]) address.searchParams.delete(name);
    address.searchParams.set("from", at(Math.min(start.x, event.clientX)));
    address.searchParams.set("to", at(Math.max(start.x, event.clientX)));
    location.href = address;
  });

  // -- keys --------------------------------------------------------------------------------------------------------

  const pages = { o: "/", a: "/actions", e: "/errors", j: "/jobs", r: "/running", q: "/queries" };
  let going = false;

  function step(by) {
    const links = [...main.querySelectorAll("tbody tr")]
      .map((row) => row.querySelector("a.name, a[href]"))
      .filter((link) => link && link.offsetParent);
    if (!links.length) return;
    const at = links.findIndex((link) => link.closest("tr").contains(document.activeElement));
    const next = at < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(Math.max(at + by, 0), links.length - 1);
    links[next].focus();
    links[next].scrollIntoView({ block: "nearest" });
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.target;
    const typing = target instanceof Element && target.matches("input, select, textarea");
    if (event.key === "Escape" && typing) return void target.blur();
    if (typing || keys.open) return;
    if (going) {
      going = false;
      if (pages[event.key]) location.href = pages[event.key];
      return;
    }
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "/") search.focus(), search.select();
    else if (event.key === "?") keys.showModal();
    else if (event.key === "l") toggle();
    else if (event.key === "g") going = true;
    else return;
    event.preventDefault();
  });
  const opener = document.getElementById("keys-button");
  if (opener) {
    opener.hidden = false;
    opener.addEventListener("click", () => keys.showModal());
  }

  // -- suggestions -------------------------------------------------------------------------------------------------

  if (!search) return;
  search.setAttribute("role", "combobox");
  search.setAttribute("aria-autocomplete", "list");
  search.setAttribute("aria-controls", "suggestions");
  search.setAttribute("aria-expanded", "false");
  let chosen = -1;
  let waiting = 0;

  function show(items) {
    list.replaceChildren(
      ...items.map((item, index) => {
        const made = document.createElement("li");
        made.id = `suggestion-${index}`;
        made.setAttribute("role", "option");
        made.setAttribute("aria-selected", "false");
        made.dataset.value = item.value;
        made.textContent = item.value.trim();
        if (item.about) {
          const about = document.createElement("span");
          about.textContent = item.about;
          made.append(about);
        }
        return made;
      }),
    );
    chosen = -1;
    search.removeAttribute("aria-activedescendant");
    list.hidden = items.length === 0;
    search.setAttribute("aria-expanded", String(items.length > 0));
  }

  function choose(index) {
    const items = [...list.children];
    chosen = (index + items.length) % items.length;
    items.forEach((item, at) => item.setAttribute("aria-selected", String(at === chosen)));
    search.setAttribute("aria-activedescendant", items[chosen].id);
    items[chosen].scrollIntoView({ block: "nearest" });
  }

  function take(item) {
    search.value = item.dataset.value;
    search.focus();
    suggest();
  }

  function suggest() {
    clearTimeout(waiting);
    waiting = setTimeout(async () => {
      const asked = search.value;
      try {
        const answer = await fetch(`/suggest.json?q=${encodeURIComponent(asked)}`, { credentials: "same-origin" });
        const items = answer.ok ? await answer.json() : [];
        if (search.value === asked && document.activeElement === search) show(items);
      } catch {
        show([]);
      }
    }, 120);
  }

  search.addEventListener("input", suggest);
  search.addEventListener("focus", suggest);
  search.addEventListener("blur", () => setTimeout(() => show([]), 150));
  search.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    if (event.key === "ArrowDown") choose(chosen + 1);
    else if (event.key === "ArrowUp") choose(chosen < 0 ? -1 : chosen - 1);
    else if ((event.key === "Enter" || event.key === "Tab") && chosen >= 0) take(list.children[chosen]);
    else if (event.key === "Escape") show([]);
    else return;
    event.preventDefault();
  });
  list.addEventListener("mousedown", (event) => {
    const item = event.target.closest("li");
    event.preventDefault();
    if (item) take(item);
  });
})();
