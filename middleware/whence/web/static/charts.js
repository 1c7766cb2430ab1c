// Axes of time in the zone of the viewer, as all other times; without this file they stay in UTC.
"use strict";

(() => {
  const zone = new Intl.DateTimeFormat().resolvedOptions().timeZone;
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
  const withSeconds = new Intl.DateTimeFormat(undefined, {
    hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false,
  });
  const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

  for (const chart of document.querySelectorAll("svg.chart")) {
    let before = "";
    for (const label of chart.querySelectorAll("text[data-time]")) {
      const moment = new Date(Number(label.dataset.time));
      if (Number.isNaN(moment.getTime()) || !label.textContent) continue;
      const times = label.textContent.match(/\d\d:\d\d(:\d\d)?/);
      const date = day.format(moment);
      const time = times && (times[1] ? withSeconds : clock).format(moment);
      const utc = document.createElementNS("http://www.w3.org/2000/svg", "title");
      utc.textContent = moment.toISOString();
      label.textContent = [date === before ? "" : date, time].filter(Boolean).join(", ");
      label.append(utc);
      before = date;
    }
  }
  for (const name of document.querySelectorAll("[data-zone]")) name.textContent = zone;
})();
