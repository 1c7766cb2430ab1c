// Everything but the live list works without this script.
"use strict";

(() => {
  const LIVE_MS = 1000;
  const MOST_ROWS = 300;

  const whole = new Intl.DateTimeFormat(undefined, {
    year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
    fractionalSecondDigits: 3, hour12: false, timeZoneName: "short",
  });
  const clock = new Intl.DateTimeFormat(undefined, {
    hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false,
  });
  const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

  // Show times in the time zone of the browser; the title keeps UTC.
  function localTimes(root) {
    const today = new Date().toDateString();
    for (const element of root.querySelectorAll("time[datetime]")) {
      const moment = new Date(element.dateTime);
      if (Number.isNaN(moment.getTime())) continue;
      if (element.dataset.form === "short") {
        const isToday = moment.toDateString() === today;
        element.textContent = (isToday ? "" : day.format(moment) + ", ") + clock.format(moment);
      } else {
        element.textContent = whole.format(moment);
      }
    }
  }

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

  // Live list: request changes once a second while the page is visible.
  function living(button) {
    const rows = document.getElementById("rows");
    let cursor = button.dataset.cursor;
    let timer = 0;

    function isOn() {
      return button.getAttribute("aria-pressed") === "true";
    }

    async function ask() {
      if (!isOn()) return;
      if (!document.hidden) {
        try {
          await fetchChanges();
        } catch {
          say("The server does not respond. Retrying.");
        }
      }
      timer = setTimeout(ask, LIVE_MS);
    }

    async function fetchChanges() {
      const url = new URL(button.dataset.url, location.href);
      if (cursor) url.searchParams.set("cursor", cursor);
      const p95 = rows?.closest("table").dataset.p95;
      if (p95) url.searchParams.set("p95_ms", p95);
      const answer = await fetch(url);
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const body = page.querySelector("tbody[data-cursor]");
      if (!body || !isOn()) return;
      cursor = body.dataset.cursor;
      const known = new Set(rows ? [...rows.children].map((row) => row.dataset.trace) : []);
      const fresh = [...body.children].filter((row) => !known.has(row.dataset.trace));
      if (!fresh.length) return;
      if (!rows) {
        location.reload();
        return;
      }
      localTimes(body);
      for (const row of fresh) row.classList.add("is-new");
      rows.prepend(...fresh);
      while (rows.children.length > MOST_ROWS) rows.lastElementChild.remove();
      say(`${fresh.length} new ${fresh.length === 1 ? "trace" : "traces"}`);
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
    button.addEventListener("click", () => turn(!isOn()));
    if ("on" in button.dataset) turn(true);
  }

  // Dragging over the histogram selects a time range.
  function dragging(chart) {
    const { start, width, here } = chart.dataset;
    const bars = chart.viewBox.baseVal.width / 10;
    let from = null;
    let mark = null;

    function place(event) {
      const box = chart.getBoundingClientRect();
      return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1) * bars;
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
        mark.setAttribute("height", "100");
        chart.append(mark);
        chart.setPointerCapture(event.pointerId);
      }
      const [first, last] = ends(event);
      mark.setAttribute("x", String(first * 10));
      mark.setAttribute("width", String((last - first) * 10));
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
        const { copy, copyFrom } = button.dataset;
        const text = copy ?? (await (await fetch(copyFrom)).text());
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

  function expanding(button) {
    const all = [...document.querySelectorAll(".waterfall > ol > li > details")];
    button.hidden = all.length < 2;
    button.addEventListener("click", () => {
      const open = all.some((one) => !one.open);
      for (const one of all) one.open = open;
      button.textContent = open ? "Collapse all" : "Expand all";
    });
  }

  localTimes(document);
  const filter = document.querySelector("input[data-complete]");
  if (filter) completing(filter, document.getElementById("offers"));
  const live = document.getElementById("live");
  if (live) living(live);
  for (const chart of document.querySelectorAll("svg[data-here]")) dragging(chart);
  for (const button of document.querySelectorAll("[data-copy], [data-copy-from]")) copying(button);
  const expand = document.getElementById("expand");
  if (expand) expanding(expand);

  // The slash key focuses the filter.
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input, textarea, select, [contenteditable]");
    if (event.key === "/" && filter && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      filter.focus();
      filter.select();
    }
  });
})();
