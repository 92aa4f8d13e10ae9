// A run's page while the run goes on: what is new is put in its place as the server sends it, the
// reader follows the end if they were there, and commands are copied. All of it is on the page
// without this script as well, once it is loaded again.
"use strict";

(() => {
  const by = (id) => document.getElementById(id);
  let source = null;
  let address = null;

  // --- fragments: each takes the place of what has its id; a new one is added at the end

  function atTheEnd() {
    return window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 80;
  }

  function put(html) {
    const turns = by("turns");
    if (!turns) return;
    const follow = atTheEnd();
    const template = document.createElement("template");
    template.innerHTML = html;
    for (const fresh of [...template.content.children]) {
      const old = by(fresh.id);
      // What the reader has not seen half of need not be taken back.
      if (fresh.dataset.ends === "making" && !by("making").firstElementChild) continue;
      if (fresh.id === "making" && isThere(fresh)) fresh.replaceChildren();
      if (old) keepOpen(old, fresh);
      if (old) old.replaceWith(fresh);
      else turns.append(fresh);
      htmx.process(fresh);
    }
    document.dispatchEvent(new CustomEvent("durably:put"));
    if (follow) window.scrollTo({ top: document.documentElement.scrollHeight });
  }

  // What is in the making may come after the message that it became.
  function isThere(making) {
    const seq = making.querySelector("[data-seq]")?.dataset.seq;
    return seq !== undefined && by(`message-${seq}`) !== null;
  }

  function keepOpen(old, fresh) {
    const open = [...old.querySelectorAll("details[open][id]")].map((details) => details.id);
    for (const details of fresh.querySelectorAll("details[id]")) {
      if (open.includes(details.id)) details.open = true;
    }
  }

  // --- the stream: begun where the page ends; the browser itself asks again where it broke off

  function listen() {
    const place = document.querySelector("[data-live]");
    const wanted = place?.dataset.live ?? null;
    if (wanted === address) return; // Also of one that has ended.
    source?.close();
    source = null;
    address = wanted;
    if (!wanted) return;
    source = new EventSource(wanted);
    source.addEventListener("open", () => tell("Live: what is new appears here."));
    source.addEventListener("error", () => tell("Not connected; trying again …"));
    source.addEventListener("fragments", (event) => put(JSON.parse(event.data).html));
    source.addEventListener("moved", () => moved());
    source.addEventListener("end", () => {
      source?.close();
      source = null;
      tell("");
      moved();
    });
  }

  function tell(text) {
    const place = by("following");
    if (place && place.textContent !== text) place.textContent = text;
  }

  // The head and what is under the tab are asked for again, once nobody is writing in them.
  let waiting = 0;
  function moved() {
    window.clearTimeout(waiting);
    waiting = window.setTimeout(() => {
      if (isBusy()) moved();
      else document.body.dispatchEvent(new CustomEvent("durably:moved"));
    }, 200);
  }

  function isBusy() {
    const active = document.activeElement;
    const writes = active?.matches("input, textarea, select") && active.closest("#head, #under-tab");
    return document.hidden || document.querySelector("dialog[open]") !== null || Boolean(writes);
  }

  // What was typed and not sent yet stays, as far as its field does.
  const typed = new Map();
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.target?.id !== "head") return;
    typed.clear();
    for (const field of event.detail.target.querySelectorAll("input[id], textarea[id]")) {
      if (field.value !== field.defaultValue) typed.set(field.id, field.value);
    }
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target?.id !== "head") return;
    for (const [id, value] of typed) if (by(id)) by(id).value = value;
  });

  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.detail.target?.id === "tab" || event.detail.target?.id === "head") listen();
  });
  // Somebody has let it go on, perhaps, after its stream had ended.
  document.addEventListener("durably:changed", () => {
    if (source) return;
    address = null;
    const link = document.querySelector(".tabs a[aria-current]");
    if (by("conversation") && link) htmx.ajax("GET", link.getAttribute("hx-get"), { target: "#tab" });
    else listen();
  });
  window.addEventListener("pagehide", () => source?.close());
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) {
      address = null;
      listen();
    }
  });

  // --- commands

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-copy]");
    if (!button) return;
    const code = button.parentElement.querySelector("code");
    const copied = () => {
      button.textContent = "Copied";
      window.setTimeout(() => (button.textContent = "Copy"), 1500);
    };
    const select = () => window.getSelection().selectAllChildren(code);
    if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(copied, select);
    else select();
  });

  // --- a link to a call or a message opens what it is in

  function reveal() {
    const target = by(decodeURIComponent(window.location.hash.slice(1)));
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    target?.scrollIntoView({ block: "start" });
  }
  window.addEventListener("hashchange", reveal);
  if (window.location.hash) reveal();

  listen();
})();
