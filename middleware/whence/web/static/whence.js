// Everything works without this file but what is live: it only makes the page nicer to use.
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

  // Times in the zone of the viewer; the title keeps UTC.
  function localTimes(root) {
    const today = new Date().toDateString();
    for (const element of root.querySelectorAll("time[datetime]")) {
      const moment = new Date(element.dateTime);
      if (Number.isNaN(moment.getTime())) continue;
      if (element.dataset.form === "short") {
        const isToday = moment.toDateString() === today;
        element.textContent = (isToday ? "" : day.format(moment) + " ") + clock.format(moment);
      } else {
        element.textContent = whole.format(moment);
      }
    }
  }

  localTimes(document);
  window.whence = { localTimes };
})();
