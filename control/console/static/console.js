"use strict";
// The console works without this. It follows a suspension while sidecars
// acknowledge it.
(function () {
  if (!window.EventSource) { return; }
  document.querySelectorAll("[data-events]").forEach(function (live) {
    const source = new EventSource(live.dataset.events);
    const body = live.querySelector("tbody");
    const late = body && "laggards" in body.dataset; // only those that have not acknowledged
    const status = live.querySelector("[data-status]");
    const words = { acknowledged: "good", lapsed: "warn", pending: "warn" };
    source.addEventListener("enforcement", function (event) {
      const e = JSON.parse(event.data);
      const shown = (e.sidecars || []).filter(function (s) { return !late || s.state !== "acknowledged"; });
      const rows = shown.map(function (s) {
        const tr = document.createElement("tr");
        [["th", "Sidecar", s.id], ["td", "State", s.state], ["td", "Revision", String(s.revision)]].forEach(function (cell, i) {
          const c = document.createElement(cell[0]);
          c.dataset.label = cell[1];
          if (i === 0) { c.scope = "row"; }
          if (i === 1) {
            const badge = document.createElement("span");
            badge.className = "badge " + (words[s.state] || "bad");
            badge.textContent = cell[2];
            c.append(badge);
          } else {
            c.textContent = cell[2];
          }
          tr.append(c);
        });
        return tr;
      });
      if (body) { body.replaceChildren.apply(body, rows); }
      const done = (e.sidecars || []).filter(function (s) { return s.state === "acknowledged"; }).length;
      status.textContent = e.complete
        ? "In force everywhere: " + done + " of " + (e.sidecars || []).length + " sidecars acknowledged it, the others can only refuse."
        : "Not everywhere yet: " + done + " of " + (e.sidecars || []).length + " sidecars acknowledged it.";
      if (e.complete) {
        status.parentElement.className = "notice good";
        source.close();
      }
    });
  });
})();
