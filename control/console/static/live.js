"use strict";
// The console works without this. It counts clocks down while a page is open.
(function () {
  function left(ms) {
    const over = ms < 0, m = Math.floor(Math.abs(ms) / 60000), h = Math.floor(m / 60), d = Math.floor(h / 24);
    const text = d >= 2 ? d + " days" : h >= 1 ? h + " h " + (m % 60) + " min" : m + " min";
    return text + (over ? " over" : " left");
  }
  const clocks = document.querySelectorAll("[data-deadline]");
  function tick() {
    clocks.forEach(function (e) {
      const end = Date.parse(e.dataset.deadline);
      if (!isNaN(end)) { e.textContent = left(end - Date.now()); }
    });
  }
  if (clocks.length > 0) {
    tick();
    setInterval(tick, 15000);
  }
})();
