// Show time axes in the time zone of the browser; without this script they are in UTC.
"use strict";

(() => {
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
  const withSeconds = new Intl.DateTimeFormat(undefined, {
    hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false,
  });
  const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

  const toMinutes = {
    year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hour12: false,
  };
  const moments = new Intl.DateTimeFormat(undefined, toMinutes);
  const momentsWithSeconds = new Intl.DateTimeFormat(undefined, { ...toMinutes, second: "2-digit" });

  function show(chart) {
    for (const title of chart.querySelectorAll(".steps title")) {
      const [time, ...rest] = title.textContent.split(" UTC: ");
      const moment = new Date(`${time.replace(" ", "T")}Z`);
      if (!rest.length || Number.isNaN(moment.getTime())) continue;
      const form = /:\d\d:\d\d$/.test(time) ? momentsWithSeconds : moments;
      title.textContent = `${form.format(moment)}: ${rest.join(" UTC: ")}`;
    }
    const labels = [...chart.querySelectorAll("text[data-time]")].filter((label) => label.textContent);
    const words = labels.map((label) => label.textContent).join(" ");
    const times = /\d:\d\d:\d\d/.test(words) ? withSeconds : /\d:\d\d/.test(words) ? clock : null;
    let before = "";
    let end = -Infinity;
    for (const label of labels) {
      const moment = new Date(Number(label.dataset.time));
      if (Number.isNaN(moment.getTime())) continue;
      const date = day.format(moment);
      const isMidnight = !(moment.getHours() || moment.getMinutes() || moment.getSeconds());
      const time = times && !isMidnight ? times.format(moment) : "";
      label.textContent = [date === before ? "" : date, time].filter(Boolean).join(", ");
      // Labels in another time zone have other lengths: drop a label that would overlap the last one.
      const box = label.getBoundingClientRect();
      if (box.left < end) label.textContent = "";
      else end = box.right + 6;
      const utc = document.createElementNS("http://www.w3.org/2000/svg", "title");
      utc.textContent = moment.toISOString();
      label.append(utc);
      before = date;
    }
  }

  document.querySelectorAll("svg.chart").forEach(show);
  // A part of the page was replaced.
  document.addEventListener("charts", (event) => event.target.querySelectorAll("svg.chart").forEach(show));
})();
