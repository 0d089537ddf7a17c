// Keeps the page fresh. Without this file the page is whole as well and reloads itself.
"use strict";

(() => {
  const RETRY_MS = 15000;
  const stale = document.getElementById("stale");

  // The server writes UTC; a reader wants the time on the wall.
  function localise(root) {
    const log = root.querySelector("[data-now]");
    const today = log === null ? "" : new Date(log.dataset.now).toDateString();
    for (const node of root.querySelectorAll("time")) {
      const at = new Date(node.dateTime);
      const time = at.toLocaleTimeString([], { hourCycle: "h23" });
      const day = at.toLocaleDateString([], { day: "numeric", month: "short" });
      node.textContent = at.toDateString() === today ? time : `${day} ${time}`;
    }
  }

  // Words that somebody is marking stay until the mark is gone.
  function marked(node) {
    const selection = document.getSelection();
    return selection !== null && !selection.isCollapsed && node.contains(selection.anchorNode);
  }

  // The HTML is drawn and escaped by the server, as for the first load.
  function replace(message) {
    const { id, html } = JSON.parse(message.data);
    const node = document.getElementById(id);
    if (node !== null && !marked(node)) {
      node.innerHTML = html;
      localise(node);
    }
  }

  function connect() {
    const source = new EventSource("/api/v1/events");
    source.addEventListener("open", () => { stale.hidden = true; });
    source.addEventListener("section", replace);
    source.addEventListener("error", () => {
      stale.hidden = false;
      // A refusal ends an event source for good: too many pages are open, or the login is over.
      if (source.readyState === EventSource.CLOSED) {
        setTimeout(connect, RETRY_MS);
      }
    });
  }

  localise(document);
  document.getElementById("zone").textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
  connect();
})();
