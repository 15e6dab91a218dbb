"use strict";
// The console works without this. It follows a suspension while sidecars
// acknowledge it, and saves answers as they are given.
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
(function () {
  const list = document.querySelector("[data-live-forms]");
  if (!list || !window.fetch) { return; }
  let last = Promise.resolve();
  let waiting = 0;
  // show puts the page as it is now in the place of the questions, and leaves the
  // focus, and what is being typed, where it was.
  function show(page, changed) {
    const fresh = page.querySelector("[data-live-forms]");
    if (!fresh) { return; }
    const open = Array.from(list.querySelectorAll("details[open]")).map(function (d) { return d.closest("section").id; });
    const active = list.contains(document.activeElement) ? document.activeElement : null;
    const typed = active && (active.tagName === "TEXTAREA" || active.type === "text" || active.type === "url") ? active.value : null;
    const id = active ? active.id : "";
    list.replaceChildren.apply(list, Array.from(fresh.childNodes).map(function (n) { return document.adoptNode(n); }));
    open.forEach(function (section) {
      const d = document.querySelector("#" + CSS.escape(section) + " details");
      if (d) { d.open = true; }
    });
    const field = id && document.getElementById(id);
    if (field) {
      if (typed !== null) { field.value = typed; }
      field.focus({ preventScroll: true });
    }
    const answer = document.getElementById(changed);
    const mark = answer && answer.closest(".question") && answer.closest(".question").querySelector(".mark");
    const status = document.getElementById("saved");
    if (status) { status.textContent = "Saved" + (mark ? ": " + mark.textContent : "") + "."; }
  }
  function save(action, sent, changed) {
    return fetch(action, { method: "POST", body: sent, credentials: "same-origin" }).then(function (r) {
      return r.text().then(function (text) {
        waiting--;
        if (waiting > 0) { return; } // what was answered meanwhile is not in it
        const page = new DOMParser().parseFromString(text, "text/html");
        const told = page.getElementById("problem");
        const before = document.getElementById("problem");
        if (before) { before.remove(); }
        if (told) { list.before(document.adoptNode(told)); }
        if (r.ok) { show(page, changed); }
      });
    }, function () { waiting--; }); // the button still saves
  }
  list.addEventListener("change", function (event) {
    const form = event.target.form;
    if (!form || !form.querySelector("input[name=q]")) { return; }
    const sent = new URLSearchParams(new FormData(form)); // as it is now
    const action = form.action;
    const changed = event.target.id;
    waiting++;
    last = last.then(function () { return save(action, sent, changed); });
  });
})();
