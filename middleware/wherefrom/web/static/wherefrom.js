// Everything but the live list works without this script.
"use strict";

(() => {
  const LIVE_MS = 1000;
  const REFRESH_MS = 5000;

  function say(text) {
    const place = document.getElementById("said");
    if (place) place.textContent = text;
  }

  // Completion: a list below the filter that follows the ARIA combobox pattern.
  function completing(input, list) {
    let offers = [];
    let chosen = -1;
    let asked = 0;
    let timer = 0;

    input.setAttribute("role", "combobox");
    input.setAttribute("aria-autocomplete", "list");
    input.setAttribute("aria-controls", list.id);
    close();

    function close() {
      list.hidden = true;
      chosen = -1;
      input.setAttribute("aria-expanded", "false");
      input.removeAttribute("aria-activedescendant");
    }

    function choose(index) {
      chosen = index;
      for (const [at, item] of [...list.children].entries()) {
        item.setAttribute("aria-selected", String(at === index));
        if (at === index) {
          input.setAttribute("aria-activedescendant", item.id);
          item.scrollIntoView({ block: "nearest" });
        }
      }
      if (index < 0) input.removeAttribute("aria-activedescendant");
    }

    function show() {
      list.replaceChildren(...offers.map((offer, at) => {
        const item = document.createElement("li");
        item.id = `offer-${at}`;
        item.setAttribute("role", "option");
        item.append(document.createElement("bdi"));
        item.firstChild.textContent = offer.label;
        if (offer.help) {
          item.append(document.createElement("small"));
          item.lastChild.textContent = offer.help;
        }
        item.addEventListener("pointerdown", (event) => {
          event.preventDefault();
          take(at);
        });
        return item;
      }));
      list.hidden = !offers.length;
      input.setAttribute("aria-expanded", String(Boolean(offers.length)));
      choose(-1);
    }

    function take(index) {
      const rest = input.value.slice(input.selectionStart);
      const text = offers[index].text + (/[\w'"`)]$/.test(offers[index].text) && !rest ? " " : "");
      input.value = text + rest;
      input.setSelectionRange(text.length, text.length);
      input.focus();
      ask();
    }

    async function ask() {
      const mine = ++asked;
      const url = new URL(input.dataset.complete, location.href);
      url.searchParams.set("text", input.value.slice(0, input.selectionStart));
      try {
        const answer = await fetch(url);
        const found = answer.ok ? (await answer.json()).offers : [];
        if (mine !== asked || document.activeElement !== input) return;
        offers = found;
        show();
      } catch {
        close();
      }
    }

    input.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(ask, 90);
    });
    input.addEventListener("blur", () => {
      asked += 1;
      close();
    });
    input.addEventListener("keydown", (event) => {
      const isOpen = !list.hidden;
      if (event.key === "ArrowDown") {
        event.preventDefault();
        if (isOpen) choose((chosen + 1) % offers.length);
        else ask();
      } else if (event.key === "ArrowUp" && isOpen) {
        event.preventDefault();
        choose((chosen <= 0 ? offers.length : chosen) - 1);
      } else if (event.key === "Enter" && isOpen && chosen >= 0) {
        event.preventDefault();
        take(chosen);
      } else if (event.key === "Escape" && isOpen) {
        event.preventDefault();
        close();
      }
    });
  }

  // Put another version of a part of the page in place, unless somebody is using it.
  function replace(part, page) {
    const fresh = page.getElementById(part.id);
    if (!fresh || part.contains(document.activeElement) || part.querySelector(".chosen")) return;
    for (const open of part.querySelectorAll("details[open]")) {
      const same = fresh.querySelector(`details.${CSS.escape(open.classList[0])}`);
      if (same) same.open = true;
    }
    const fold = part.querySelector(".fold");
    if (fold?.checked) fresh.querySelector(".fold").checked = true;
    part.replaceWith(fresh);
    for (const chart of fresh.querySelectorAll("svg[data-here]")) dragging(chart);
    fresh.dispatchEvent(new Event("charts", { bubbles: true }));
  }

  // Put rows in place; one that has not changed stays the same element, with its focus.
  function replaceRows(list, page) {
    const [rows, fresh] = [list, page].map((one) => one.querySelector("#rows"));
    if (!rows || !fresh) {
      replace(list, page);
      return;
    }
    const known = new Map([...rows.children].map((row) => [row.dataset.trace, row]));
    rows.replaceChildren(...[...fresh.children].map((row) => {
      const old = known.get(row.dataset.trace);
      if (old && old.className === row.className && !old.querySelector(".state-in_progress")) return old;
      if (old) row.querySelector("[name=trace]").checked = old.querySelector("[name=trace]").checked;
      if (!old) row.classList.add("is-new");
      return row;
    }));
    for (const name of ["caption", ".pages"]) {
      const [old, other] = [list, page.getElementById(list.id)].map((one) => one.querySelector(name));
      if (old && other && !old.contains(document.activeElement)) old.replaceWith(other);
    }
  }

  // Live: ask for changes once a second while the page is visible. New rows come in at once where the newest
  // are shown first; counts, charts and other orders are read again every few seconds.
  function living(button) {
    let cursor = button.dataset.cursor;
    let timer = 0;
    let refreshed = Date.now();
    let isStale = false;

    function isOn() {
      return button.getAttribute("aria-pressed") === "true";
    }

    async function ask() {
      if (!isOn()) return;
      if (!document.hidden) {
        try {
          await fetchChanges();
          if (isStale && Date.now() - refreshed >= REFRESH_MS) await refresh();
        } catch {
          say("The server does not respond. Retrying.");
        }
      }
      if (isOn()) timer = setTimeout(ask, LIVE_MS);
    }

    async function read(url) {
      const answer = await fetch(url);
      return answer.ok && isOn() ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
    }

    async function fetchChanges() {
      const rows = document.getElementById("rows");
      const url = new URL(button.dataset.url, location.href);
      if (cursor) url.searchParams.set("cursor", cursor);
      const p95 = rows?.closest("table").dataset.p95;
      if (p95) url.searchParams.set("p95_ms", p95);
      const body = (await read(url))?.querySelector("tbody[data-cursor]");
      if (!body || !isOn()) return;
      cursor = body.dataset.cursor;
      if (!body.children.length) return;
      isStale = true;
      if (!rows) {
        await refresh();
      } else if ("grows" in button.dataset) {
        insert(rows, [...body.children]);
      }
    }

    function insert(rows, changed) {
      const known = new Set([...rows.children].map((row) => row.dataset.trace));
      const most = Math.max(rows.children.length, Number(button.dataset.grows));
      const fresh = changed.filter((row) => !known.has(row.dataset.trace));
      for (const row of fresh.reverse()) {
        row.classList.add("is-new");
        const next = [...rows.children].find((other) => Number(other.dataset.at) <= Number(row.dataset.at));
        rows.insertBefore(row, next ?? null);
      }
      while (rows.children.length > most) rows.lastElementChild.remove();
      countChosen();
      if (fresh.length) say(`${fresh.length} new ${fresh.length === 1 ? "trace" : "traces"}`);
    }

    async function refresh() {
      refreshed = Date.now();
      const page = await read(location.href);
      if (!page?.getElementById("list")) return;
      isStale = false;
      replaceRows(document.getElementById("list"), page);
      for (const id of ["over-time", "facets", "trends"]) {
        const part = document.getElementById(id);
        if (part) replace(part, page);
      }
      countChosen();
    }

    function turn(on) {
      button.setAttribute("aria-pressed", String(on));
      const url = new URL(location.href);
      if (on) url.searchParams.set("live", "true");
      else url.searchParams.delete("live");
      history.replaceState(null, "", url);
      clearTimeout(timer);
      if (on) ask();
    }

    button.hidden = false;
    button.addEventListener("click", () => {
      const { searchParams } = new URL(location.href);
      const isFirst = !searchParams.get("after") && !searchParams.get("before");
      if (isFirst) turn(!isOn());
      else location.assign(button.dataset.first);  // new traces come in on the first page
    });
    if ("on" in button.dataset) turn(true);
  }

  // Choices in the table: two traces can be compared, and the header chooses all of the page.
  function countChosen() {
    const boxes = [...document.querySelectorAll("#rows [name=trace]")];
    const chosen = boxes.filter((box) => box.checked).length;
    const [compare, all, note] = ["compare-chosen", "choose-all", "chosen-count"].map((id) => document.getElementById(id));
    if (!compare) return;
    compare.disabled = chosen !== 2;
    all.hidden = false;
    all.checked = chosen > 0 && chosen === boxes.length;
    all.indeterminate = chosen > 0 && !all.checked;
    note.dataset.none ??= note.textContent;
    note.textContent = chosen ? `of ${chosen} chosen ${chosen === 1 ? "trace" : "traces"}` : note.dataset.none;
  }

  document.addEventListener("change", ({ target }) => {
    if (target.id === "choose-all") {
      for (const box of document.querySelectorAll("#rows [name=trace]")) box.checked = target.checked;
    } else if (!target.matches("#rows [name=trace]")) {
      return;
    }
    countChosen();
  });
  addEventListener("pageshow", countChosen);  // also after Back, when the browser has restored the choices

  // A link of the page keeps what has been typed into the filter and not been searched for yet.
  function keeping(input) {
    document.addEventListener("click", async (event) => {
      const link = event.target.closest("main a[href]");
      const isPlain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey;
      if (!link || input.value === input.defaultValue || !isPlain || event.defaultPrevented) return;
      const url = new URL(link.href);
      if (url.pathname !== location.pathname || link.dataset.drops !== undefined) return;
      event.preventDefault();
      let typed = input.value;
      if (link.dataset.field !== undefined) {
        const toggle = new URL(input.dataset.toggle, location.href);
        toggle.searchParams.set("filter", typed);
        toggle.searchParams.set("field", link.dataset.field);
        toggle.searchParams.set("value", link.dataset.value);
        toggle.searchParams.set("way", link.dataset.way ?? "toggle");
        const answer = await fetch(toggle);
        if (answer.ok) typed = (await answer.json()).filter;
      }
      if (typed) url.searchParams.set("filter", typed);
      else url.searchParams.delete("filter");
      url.searchParams.delete("after");
      url.searchParams.delete("before");
      location.assign(url);
    });
  }

  // Times are typed in the time zone of the browser; the address has them in UTC.
  function timing(input) {
    const isUtc = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?Z$/;
    const isLocal = /^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?$/;
    if (isUtc.test(input.value)) {
      const moment = new Date(input.value);
      const local = new Date(moment.getTime() - moment.getTimezoneOffset() * 60_000);
      input.value = local.toISOString().replace("T", " ").replace(/(\.000)?Z$/, "");
    }
    input.form.addEventListener("submit", () => {
      const text = input.value.trim();
      if (!isLocal.test(text)) return;
      const moment = new Date(text.length > 10 ? text.replace(" ", "T") : `${text}T00:00`);
      if (!Number.isNaN(moment.getTime())) input.value = moment.toISOString();
    });
  }

  // Dragging over a chart selects a time range.
  function dragging(chart) {
    const { start, width, here } = chart.dataset;
    const bars = Number(chart.dataset.bars);
    const margin = Number(chart.dataset.margin ?? 0);
    let from = null;
    let mark = null;

    function place(event) {
      const box = chart.getBoundingClientRect();
      const share = ((event.clientX - box.left) / box.width - margin) / (1 - 2 * margin);
      return Math.min(Math.max(share, 0), 1) * bars;
    }

    function ends(event) {
      const to = place(event);
      return [Math.floor(Math.min(from, to)), Math.max(Math.ceil(Math.max(from, to)), 1)];
    }

    chart.addEventListener("dragstart", (event) => event.preventDefault());
    chart.addEventListener("pointerdown", (event) => {
      if (event.button === 0) from = place(event);
    });
    chart.addEventListener("pointermove", (event) => {
      if (from === null || (mark === null && Math.abs(place(event) - from) < 0.5)) return;
      if (mark === null) {
        mark = document.createElementNS("http://www.w3.org/2000/svg", "rect");
        mark.setAttribute("class", "chosen");
        mark.setAttribute("y", "0");
        mark.setAttribute("height", "100%");
        chart.append(mark);
        chart.setPointerCapture(event.pointerId);
      }
      const [first, last] = ends(event);
      const bar = 100 * (1 - 2 * margin) / bars;
      mark.setAttribute("x", `${100 * margin + first * bar}%`);
      mark.setAttribute("width", `${(last - first) * bar}%`);
    });
    chart.addEventListener("pointerup", (event) => {
      if (mark !== null) {
        const [first, last] = ends(event);
        const url = new URL(here, location.href);
        url.searchParams.set("since", String(Number(start) + first * Number(width)));
        url.searchParams.set("until", String(Number(start) + last * Number(width)));
        chart.addEventListener("click", (click) => click.preventDefault(), { once: true, capture: true });
        location.assign(url);
      }
      from = mark = null;
    });
    chart.addEventListener("pointercancel", () => {
      mark?.remove();
      from = mark = null;
    });
  }

  // Copy buttons: hidden without this script.
  function copying(button) {
    const label = button.textContent;
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        const { copy, copyFrom, copyNear } = button.dataset;
        const near = copyNear === undefined ? null : button.closest(".source").querySelector("pre").textContent;
        const text = near ?? copy ?? (await (await fetch(copyFrom)).text());
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
        say("Copied");
      } catch {
        button.textContent = "Not copied";
        say("The browser denied access to the clipboard");
      }
      setTimeout(() => { button.textContent = label; }, 1500);
    });
  }

  // Trees of JSON: the item below the pointer or the focus offers to copy its path and its value.
  function offering(tree) {
    const bar = document.createElement("span");
    bar.className = "offer";
    let item = null;
    for (const [label, find] of [["Copy path", path], ["Copy value", value]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "quiet";
      button.textContent = label;
      button.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(await find());
          say("Copied");
        } catch {
          say("Not copied");
        }
      });
      bar.append(button);
    }

    function keys() {
      const found = [];
      for (let one = item; one; one = one.parentElement.closest("li[data-key]")) found.unshift(one.dataset.key);
      return found;
    }

    function path() {
      return keys().reduce((text, key) => (
        /^\d+$/.test(key) ? `${text}[${key}]` : /^[A-Za-z_$][\w$]*$/.test(key) ? `${text}.${key}` : `${text}[${JSON.stringify(key)}]`
      ), tree.dataset.path);
    }

    async function value() {
      const span = await (await fetch(tree.dataset.whole)).json();
      const found = keys().reduce((inner, key) => inner[key], span[tree.dataset.path]);
      return typeof found === "string" ? found : JSON.stringify(found, null, 2);
    }

    function choose(event) {
      const chosen = event.target.closest("li[data-key]");
      if (!chosen || chosen === item) return;
      item = chosen;
      const inner = item.querySelector(":scope > details");
      if (inner) inner.after(bar);
      else item.append(bar);
    }

    tree.addEventListener("pointerover", choose);
    tree.addEventListener("focusin", choose);
  }

  // The panes of a trace: a span is shown beside the list, which folds, searches and pages in place. The
  // address names the span by ?span= for the server, and by #span-... as a link of the list does.
  function paning(panes) {
    const prefix = "#span-";
    let asked = 0;
    let query = location.search;

    function tree() {
      return document.getElementById("tree");
    }

    function chosen() {
      return document.getElementById("detail")?.dataset.span;
    }

    function idIn(url) {
      try {
        return url.hash.startsWith(prefix) ? decodeURIComponent(url.hash.slice(prefix.length)) : null;
      } catch {
        return null;
      }
    }

    async function read(url) {
      const mine = ++asked;
      const answer = await fetch(url);
      if (!answer.ok) throw new Error(answer.statusText);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      return mine === asked ? page : null;
    }

    function mark(id) {
      for (const row of tree().querySelectorAll(".rows li")) {
        const isChosen = row.id === `span-${id}`;
        row.classList.toggle("is-chosen", isChosen);
        const link = row.querySelector(".pick");
        if (isChosen) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
        if (isChosen) row.scrollIntoView({ block: "nearest" });
      }
    }

    function show(page) {
      const fresh = page.getElementById("detail");
      const old = document.getElementById("detail");
      const hadFocus = old.contains(document.activeElement);
      old.replaceWith(fresh);
      wire(fresh);
      if (hadFocus) fresh.focus({ preventScroll: true });
      mark(fresh.dataset.span);
      if (fresh.getBoundingClientRect().top > innerHeight * 0.8) fresh.scrollIntoView();
      say(fresh.querySelector("h3").textContent);
    }

    // One span: its detail alone, if the list has it; else the list around it too.
    async function select(url) {
      const id = idIn(url);
      if (!document.getElementById(`span-${id}`)) return load(url);
      const part = new URL(url);
      part.hash = "";
      part.pathname = `${location.pathname}/spans/${encodeURIComponent(id)}`;
      const page = await read(part);
      if (page) show(page);
      return page !== null;
    }

    async function load(url) {
      const page = await read(url);
      if (!page) return false;
      const focused = document.activeElement?.id;
      const top = tree().querySelector(".rows")?.scrollTop ?? 0;
      const fresh = page.getElementById("tree");
      tree().replaceWith(fresh);
      const rows = fresh.querySelector(".rows");
      if (rows) rows.scrollTop = top;
      show(page);
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
      return true;
    }

    async function follow(url, way) {
      try {
        if (await way(url) && url.href !== location.href) history.pushState(null, "", url);
        query = location.search;
      } catch {
        location.assign(url);
      }
    }

    document.addEventListener("click", (event) => {
      const link = event.target.closest("a[data-span], a[data-loads]");
      const isPlain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
      if (!link || !isPlain || event.defaultPrevented) return;
      event.preventDefault();
      const url = new URL(link.href);
      if (link.dataset.loads === undefined) {
        follow(url, select);
      } else {
        url.hash = url.searchParams.has("span") ? `${prefix}${encodeURIComponent(url.searchParams.get("span"))}` : "";
        follow(url, load);
      }
    });
    panes.addEventListener("submit", (event) => {
      event.preventDefault();
      const url = new URL(event.target.action);
      for (const [name, value] of new FormData(event.target)) {
        if (value && !(name === "order" && value === "tree")) url.searchParams.append(name, value);
      }
      follow(url, load);
    });
    addEventListener("popstate", () => {
      const url = new URL(location.href);
      const id = idIn(url);
      if (id === null && location.search === query) return;  // another anchor of the page
      query = location.search;
      if (id !== null) url.searchParams.set("span", id);
      load(url).catch(() => location.reload());
    });
    const first = idIn(new URL(location.href));
    if (first !== null && first !== chosen()) {
      const url = new URL(location.href);
      url.searchParams.set("span", first);
      select(url).catch(() => {}).then(() => {
        if (chosen() !== first) say("This trace has no such span");
      });
    } else {
      const row = document.getElementById(`span-${chosen()}`);
      const rows = tree().querySelector(".rows");
      if (row && rows) rows.scrollTop = row.offsetTop - rows.clientHeight / 2;
    }
  }

  // What a part of the page offers with this script.
  function wire(part) {
    for (const button of part.querySelectorAll("[data-copy], [data-copy-from], [data-copy-near]")) copying(button);
    for (const json of part.querySelectorAll(".tree[data-path]")) offering(json);
  }

  const filter = document.querySelector("input[data-complete]");
  if (filter) completing(filter, document.getElementById("offers"));
  if (filter) keeping(filter);
  for (const input of document.querySelectorAll("input[name=since], input[name=until]")) {
    if (input.type === "text") timing(input);
  }
  const zone = new Intl.DateTimeFormat().resolvedOptions().timeZone;
  for (const name of document.querySelectorAll("[data-zone]")) name.textContent = zone;
  const live = document.getElementById("live");
  if (live) living(live);
  for (const chart of document.querySelectorAll("svg[data-here]")) dragging(chart);
  wire(document);
  const panes = document.getElementById("panes");
  if (panes && document.getElementById("detail")) paning(panes);

  // Saved views: names and addresses that this browser keeps.
  function saving(place) {
    const key = `wherefrom.views ${location.pathname}`;
    const list = place.querySelector("ul");
    const form = place.querySelector("form");

    function read() {
      try {
        const found = JSON.parse(localStorage.getItem(key) ?? "[]");
        return found.filter((one) => typeof one.name === "string" && typeof one.query === "string");
      } catch {
        return [];
      }
    }

    function write(views) {
      localStorage.setItem(key, JSON.stringify(views));
      show();
    }

    function show() {
      list.replaceChildren(...read().map(({ name, query }) => {
        const [item, link, remove] = ["li", "a", "button"].map((tag) => document.createElement(tag));
        const url = new URL(location.pathname, location.origin);
        url.search = query;
        link.href = url;
        link.dataset.drops = "";
        link.textContent = name;
        if (query === location.search) link.setAttribute("aria-current", "true");
        remove.type = "button";
        remove.className = "quiet";
        remove.textContent = "✕";
        remove.setAttribute("aria-label", `Remove ${name}`);
        remove.addEventListener("click", () => write(read().filter((one) => one.name !== name)));
        item.append(link, remove);
        return item;
      }));
    }

    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const name = form.elements.name.value.trim();
      if (!name) return;
      write([...read().filter((one) => one.name !== name), { name, query: location.search }]);
      form.reset();
      say(`Saved ${name}`);
    });
    place.hidden = false;
    show();
  }

  const views = document.getElementById("views");
  if (views) saving(views);

  // The palette: pages, saved views, and a search, which opens what an id names.
  function openPalette() {
    if (document.querySelector("dialog")) return;
    const home = document.querySelector(".brand");
    if (!home) return;
    const [dialog, input, list] = ["dialog", "input", "ul"].map((name) => document.createElement(name));
    let found = [];
    let chosen = 0;
    dialog.className = "palette";
    dialog.setAttribute("aria-label", "Go to");
    list.id = "palette";
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", "Places");
    for (const [name, value] of Object.entries({
      type: "text", role: "combobox", "aria-label": "Page, saved view, id or filter", "aria-controls": list.id,
      "aria-expanded": "true", autocomplete: "off", spellcheck: "false", placeholder: "page, saved view, id or filter",
    })) input.setAttribute(name, value);
    const places = [...document.querySelectorAll(".top nav a")]
      .map((link) => ({ title: link.textContent.trim(), kind: "page", url: link.href }));
    try {
      const saved = JSON.parse(localStorage.getItem(`wherefrom.views ${home.pathname}`) ?? "[]");
      for (const { name, query } of saved) {
        if (typeof name !== "string" || typeof query !== "string") continue;
        const url = new URL(home.pathname, location.origin);
        url.search = query;
        places.push({ title: name, kind: "saved view", url: url.href });
      }
    } catch {
      // What is kept cannot be read: there are no saved views.
    }

    function choose(index) {
      chosen = index;
      for (const [at, item] of [...list.children].entries()) item.setAttribute("aria-selected", String(at === index));
      list.children[index]?.scrollIntoView({ block: "nearest" });
      if (found.length) input.setAttribute("aria-activedescendant", `place-${index}`);
      else input.removeAttribute("aria-activedescendant");
    }

    function show() {
      const text = input.value.trim();
      const words = text.toLowerCase().split(/\s+/);
      found = places.filter((place) => words.every((word) => place.title.toLowerCase().includes(word)));
      if (text) {
        const url = new URL(home.href);
        url.searchParams.set("filter", text);
        found.push({ title: text, kind: "find", url: url.href });
      }
      list.replaceChildren(...found.map(({ title, kind }, at) => {
        const [item, name, what] = ["li", "bdi", "small"].map((tag) => document.createElement(tag));
        item.id = `place-${at}`;
        item.setAttribute("role", "option");
        name.textContent = title;
        what.textContent = kind;
        item.append(name, what);
        item.addEventListener("click", () => location.assign(found[at].url));
        return item;
      }));
      choose(0);
    }

    input.addEventListener("input", show);
    input.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step && found.length) choose((chosen + step + found.length) % found.length);
      else if (event.key === "Enter" && !event.isComposing && found.length) location.assign(found[chosen].url);
      else return;
      event.preventDefault();
    });
    dialog.append(input, list);
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
    show();
  }

  document.addEventListener("keydown", (event) => {
    if (event.key?.toLowerCase() !== "k" || !(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey) return;
    event.preventDefault();
    openPalette();
  });

  // Keys: they work where nobody types, and a dialog lists them.
  const helpText = [
    ["Ctrl K", "go to a page, a saved view or an id"],
    ["/", "go to the filter, or to the search among spans"], ["j", "next trace, turn or span"], ["k", "previous"],
    ["Enter", "open it"], ["x", "choose the trace in the list"], ["n", "next error in a trace"], ["p", "previous error"], ["i", "newer trace"],
    ["o", "older trace"], ["u", "back to the list"], ["?", "this list"],
  ];

  function showHelp() {
    const dialog = document.createElement("dialog");
    const heading = document.createElement("h2");
    heading.textContent = "Keys";
    const list = document.createElement("dl");
    list.className = "pairs";
    for (const [key, meaning] of helpText) {
      const [term, text, cap] = ["dt", "dd", "kbd"].map((name) => document.createElement(name));
      cap.textContent = key;
      text.textContent = meaning;
      term.append(cap);
      list.append(term, text);
    }
    const close = document.createElement("button");
    close.textContent = "Close";
    close.addEventListener("click", () => dialog.close());
    dialog.append(heading, list, close);
    dialog.setAttribute("aria-label", "Keys");
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  }

  function step(by) {
    const links = [...document.querySelectorAll("#rows .name a, .turn-head a, .compared tbody th a, .rows .pick")];
    if (!links.length) return;
    const chosen = document.querySelector(".pick[aria-current]");
    const at = links.indexOf(links.includes(document.activeElement) ? document.activeElement : chosen);
    const next = at < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(Math.max(at + by, 0), links.length - 1);
    links[next].focus();
    links[next].scrollIntoView({ block: "nearest" });
  }

  function seek() {
    const field = filter ?? document.getElementById("seek");
    field?.focus();
    field?.select();
  }

  const keys = {
    "/": seek,
    "j": () => step(1),
    "k": () => step(-1),
    "x": () => document.activeElement.closest("#rows > tr")?.querySelector("[name=trace]").click(),
    "n": () => document.querySelector("a[data-key=n]")?.click(),
    "p": () => document.querySelector("a[data-key=p]")?.click(),
    "i": () => document.querySelector("a[rel=prev]")?.click(),
    "o": () => document.querySelector("a[rel=next]")?.click(),
    "u": () => document.querySelector("a[rel=up]")?.click(),
    "?": showHelp,
  };
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable], dialog");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  });
})();
