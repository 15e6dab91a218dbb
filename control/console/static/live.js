"use strict";
// The console works without this. It counts clocks down while a page is open,
// and puts events on the page as they come.
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

(function () {
  const bar = document.querySelector("[data-live]");
  if (!bar || !window.EventSource) { return; }
  const status = bar.querySelector("[data-live-status]");
  const list = document.querySelector("[data-live-list]");
  const shownMax = 200;
  const pages = { incident: "/console/incidents/", suspension: "/console/suspensions/", decision: "/console/decisions/" };
  let source = null, waiting = [];
  function row(topic, text, link, at) {
    const li = document.createElement("li"), name = document.createElement("span"), what = document.createElement("span"), time = document.createElement("time");
    li.className = "event " + topic;
    name.className = "topic";
    name.textContent = topic;
    what.className = "what";
    if (link) {
      const a = document.createElement("a");
      a.href = link;
      a.textContent = text;
      what.append(a);
    } else {
      what.textContent = text;
    }
    time.dateTime = at;
    time.textContent = new Date(at).toISOString().slice(0, 19).replace("T", " ") + " UTC";
    li.append(name, " ", what, " ", time);
    return li;
  }
  function show() { // what came in one frame, at once
    const empty = document.querySelector("[data-live-empty]");
    if (empty) { empty.remove(); }
    list.prepend.apply(list, waiting.slice(-shownMax).reverse());
    waiting = [];
    while (list.children.length > shownMax) { list.lastElementChild.remove(); }
  }
  function add(li) {
    if (waiting.length === 0) { setTimeout(show, 100); }
    waiting.push(li);
    if (waiting.length > shownMax) { waiting.shift(); }
  }
  function tell(text, on) {
    status.textContent = text;
    status.className = on ? "on" : "off";
  }
  function begin() {
    source = new EventSource(bar.dataset.live);
    source.addEventListener("open", function () { tell("Live", true); });
    source.addEventListener("error", function () {
      if (source.readyState === EventSource.CLOSED) { tell("Not live: load the page again", false); } else { tell("Connecting again", false); }
    });
    ["incident", "signal", "suspension", "decision", "decisions", "sidecar"].forEach(function (topic) {
      source.addEventListener(topic, function (event) {
        const e = JSON.parse(event.data);
        const link = pages[topic] && e.data && e.data.id ? pages[topic] + encodeURIComponent(e.data.id) : "";
        add(row(topic, e.text, link, e.at));
      });
    });
    source.addEventListener("gap", function (event) {
      const gap = JSON.parse(event.data);
      const why = { slow: "this browser was too slow", late: "it was away for too long", restarted: "the control plane began anew" }[gap.reason] || gap.reason;
      add(row("gap", (gap.missed ? gap.missed + " events are" : "Events are") + " missing here: " + why, "", new Date().toISOString()));
    });
  }
  const pause = document.createElement("button");
  pause.type = "button";
  pause.className = "quiet";
  pause.textContent = "Pause";
  pause.addEventListener("click", function () {
    if (source) {
      source.close();
      source = null;
      tell("Paused", false);
      pause.textContent = "Go on";
    } else {
      pause.textContent = "Pause";
      begin();
    }
  });
  bar.append(pause);
  tell("Connecting", false);
  begin();
})();

// Keeps what is marked data-fresh as it is now: the page is asked for again now
// and then while somebody looks at it, and a part that changed takes the place of
// the old one unless the focus is inside. It stops when nobody has touched the page
// for a while: a page that is left open must not keep its session from ending.
(function () {
  const parts = document.querySelectorAll("[data-fresh][id]");
  if (parts.length === 0 || !window.fetch || !window.DOMParser) { return; }
  const every = 15000, untouchedMax = 10 * 60000;
  const stripped = function (e) { return e.innerHTML.replace(/\s+/g, " "); };
  const asked = Array.from(parts).map(stripped);
  const old = document.createElement("div");
  let missed = 0, asking = false, touched = Date.now();
  old.className = "notice warn";
  old.setAttribute("role", "status");
  function tellOld() {
    if (old.isConnected) { return; }
    old.textContent = "This page is not kept up to date any more. Load it again.";
    parts[0].before(old);
  }
  function miss() {
    missed++;
    if (missed > 1) { tellOld(); }
  }
  function look() {
    if (document.hidden || asking) { return; }
    if (Date.now() - touched > untouchedMax) { return tellOld(); }
    asking = true;
    fetch(location.href, { credentials: "same-origin", headers: { Accept: "text/html" } }).then(function (r) {
      if (!r.ok || r.redirected) { return miss(); }
      missed = 0;
      old.remove();
      return r.text().then(function (text) {
        const page = new DOMParser().parseFromString(text, "text/html");
        parts.forEach(function (part, i) {
          const fresh = page.getElementById(part.id);
          if (!fresh || part.contains(document.activeElement)) { return; }
          const now = stripped(fresh);
          if (now === asked[i]) { return; }
          asked[i] = now;
          part.replaceChildren.apply(part, Array.from(fresh.childNodes).map(function (n) { return document.adoptNode(n); }));
        });
      });
    }).catch(miss).finally(function () { asking = false; });
  }
  setInterval(look, every);
  function touch() { touched = Date.now(); }
  ["pointermove", "pointerdown", "keydown", "wheel"].forEach(function (event) { document.addEventListener(event, touch, { passive: true }); });
  document.addEventListener("visibilitychange", function () { touch(); look(); });
})();
