// Everything here is an extra: without it the pages work, but for live updates, keys and suggestions.
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
    let seen = null;
    source.addEventListener("hello", (event) => {
      if (seen !== null && seen !== event.data) update();
      seen = event.data;
    });
    source.addEventListener("change", (event) => {
      seen = event.data;
      if (document.visibilityState === "visible") update();
      else again = true;
    });
  }
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible" && again && source) update();
  });
  button?.addEventListener("click", () => live(!source));
  if (!new URLSearchParams(location.search).has("before")) live(true);
  setInterval(() => {
    if (source && document.visibilityState === "visible") update();
  }, 30000);

  // -- keys --------------------------------------------------------------------------------------------------------

  const pages = { o: "/", a: "/actions", e: "/errors", j: "/jobs", r: "/running", q: "/queries" };
  let going = false;

  function step(by) {
    const links = [...main.querySelectorAll("tbody tr, .errors li")]
      .map((row) => row.querySelector("a.name, a[href]"))
      .filter((link) => link && link.offsetParent);
    if (!links.length) return;
    const at = links.findIndex((link) => link.closest("tr, li").contains(document.activeElement));
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
    else if (event.key === "l") live(!source);
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
