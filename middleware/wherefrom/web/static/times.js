// Show times in the time zone of the browser while the page arrives, so that nothing moves later.
"use strict";

(() => {
  const whole = new Intl.DateTimeFormat(undefined, {
    year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
    fractionalSecondDigits: 3, hour12: false, timeZoneName: "short",
  });
  const clock = new Intl.DateTimeFormat(undefined, {
    hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false,
  });
  const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
  const today = new Date().toDateString();

  // The title of the element keeps UTC.
  function show(element) {
    const moment = new Date(element.dateTime);
    if (Number.isNaN(moment.getTime()) || !element.firstChild) return;
    const isToday = moment.toDateString() === today;
    const text = element.dataset.form !== "short" ? whole.format(moment)
      : (isToday ? "" : day.format(moment) + ", ") + clock.format(moment);
    if (element.textContent !== text) element.textContent = text;
  }

  function showAll(root) {
    for (const element of root.querySelectorAll("time[datetime]")) show(element);
  }

  new MutationObserver((records) => {
    for (const { target, addedNodes } of records) {
      if (target.nodeName === "TIME") show(target);
      for (const node of addedNodes) {
        if (node.nodeName === "TIME") show(node);
        else if (node.nodeType === Node.ELEMENT_NODE) showAll(node);
      }
    }
  }).observe(document.documentElement, { childList: true, subtree: true });
  document.addEventListener("DOMContentLoaded", () => showAll(document));
})();
