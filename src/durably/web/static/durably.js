// The dashboard's own script: the theme, questions before something is done, dialogs, refreshing
// without being in the way, keys. A page works without it, but for what htmx loads.
"use strict";

(() => {
  const root = document.documentElement;
  const by = (id) => document.getElementById(id);
  const within = (element, selector) => element?.closest?.(selector);

  // --- the theme: as the system has it, or as it was chosen; the server reads the cookie

  const THEMES = ["", "light", "dark"];
  const names = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" };

  function showTheme(button) {
    const theme = root.dataset.theme ?? "";
    button.textContent = { "": "◐", light: "☀", dark: "☾" }[theme];
    button.title = names[theme];
    button.setAttribute("aria-label", names[theme]);
  }

  function switchTheme(button) {
    const theme = THEMES[(THEMES.indexOf(root.dataset.theme ?? "") + 1) % THEMES.length];
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    const age = theme ? 31536000 : 0;
    document.cookie = `durably_theme=${theme}; path=${document.body.dataset.root}; max-age=${age}; samesite=lax`;
    showTheme(button);
  }

  // --- questions: hx-confirm, and forms with data-confirm, ask in the page's own dialog

  function ask(question, element) {
    const dialog = by("confirm");
    by("confirm-question").textContent = question;
    by("confirm-more").textContent = element.dataset.confirmMore ?? "";
    const yes = by("confirm-yes");
    yes.textContent = element.dataset.confirmYes ?? "Yes";
    yes.classList.toggle("danger", "danger" in element.dataset);
    dialog.returnValue = "no";
    dialog.showModal();
    yes.focus();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    });
  }

  document.addEventListener("htmx:confirm", (event) => {
    if (!event.detail.question) return;
    event.preventDefault();
    ask(event.detail.question, event.detail.elt).then((yes) => yes && event.detail.issueRequest(true));
  });

  // --- dialogs: data-opens="id" opens one; what htmx loads into #dialog opens it

  document.addEventListener("click", (event) => {
    const opener = within(event.target, "[data-opens]");
    if (opener) by(opener.dataset.opens)?.showModal();
    if (within(event.target, "[data-close]")) within(event.target, "dialog")?.close();
    if (within(event.target, "[data-dismiss]")) within(event.target, ".said")?.remove();
    const theme = within(event.target, "[data-theme-switch]");
    if (theme) switchTheme(theme);
  });

  // Not before htmx has taken its forms in hand: somebody may press Enter at once.
  document.addEventListener("htmx:afterSettle", (event) => {
    const dialog = by("dialog");
    if (event.detail.target !== dialog || !dialog.firstElementChild) return;
    if (!dialog.open) dialog.showModal();
    dialog.querySelector("[aria-invalid], [autofocus]")?.focus();
  });

  // A form in a dialog closes it once the server has taken what was sent; what was chosen for it is
  // done, before the list is asked for again.
  document.addEventListener(
    "durably:changed",
    () => {
      by("dialog").close();
      for (const box of document.querySelectorAll("[data-choose]:checked")) box.checked = false;
    },
    true,
  );

  // --- choosing many: data-choose-all ticks every data-choose of its table

  document.addEventListener("change", (event) => {
    if (!event.target.matches("[data-choose-all], [data-choose]")) return;
    const table = within(event.target, "table");
    const boxes = [...table.querySelectorAll("[data-choose]")];
    const all = table.querySelector("[data-choose-all]");
    if (event.target === all) for (const box of boxes) box.checked = all.checked;
    else all.checked = boxes.every((box) => box.checked);
    for (const box of boxes) within(box, "tr").classList.toggle("chosen", box.checked);
  });

  // --- refreshing: a part with data-refresh stays as it is while somebody uses it, while nobody
  // looks, and where nothing has changed

  const shown = new WeakMap();

  function inUse(part) {
    const active = document.activeElement;
    // A form that is being asked about must be there when the answer is yes.
    if (by("confirm").open || part.querySelector("dialog[open], [data-choose]:checked")) return true;
    return part.contains(active) && active.matches("input:not([type=checkbox]), textarea, select");
  }

  document.addEventListener("htmx:beforeRequest", (event) => {
    const part = within(event.detail.elt, "[data-refresh]");
    if (part !== event.detail.elt) return;
    if (document.hidden || inUse(part)) event.preventDefault();
  });

  // What was refused comes with its status, and is shown like what was done; what was typed wrong,
  // at the form in the dialog. Where nothing can be mended there, the dialog is of no use any more.
  function refused(detail) {
    const { xhr, target } = detail;
    const { elt } = detail.requestConfig;
    if (xhr.status < 400 || !xhr.getResponseHeader("content-type")?.startsWith("text/html")) return;
    detail.shouldSwap = true;
    detail.isError = false;
    const dialog = within(elt, "dialog");
    if (!dialog || target === dialog) return;
    const place = elt.querySelector("[data-wrong]");
    if (xhr.status === 422 && place) {
      detail.target = place;
      detail.swapOverride = "innerHTML";
    } else {
      dialog.close();
      document.body.dispatchEvent(new CustomEvent("durably:changed", { bubbles: true }));
    }
  }

  document.addEventListener("htmx:beforeSwap", (event) => {
    const { target, xhr, requestConfig } = event.detail;
    refused(event.detail);
    if (!("refresh" in (target.dataset ?? {})) || requestConfig.elt !== target) return;
    if (shown.get(target) === xhr.responseText || inUse(target)) event.detail.shouldSwap = false;
    shown.set(target, xhr.responseText);
    target.dataset.open = [...target.querySelectorAll("details[open][id]")].map((d) => d.id).join(" ");
  });

  document.addEventListener("htmx:afterSwap", (event) => {
    const { target } = event.detail;
    for (const id of target.dataset?.open?.split(" ") ?? []) if (by(id)) by(id).open = true;
  });

  // --- what was done is read in a few seconds; what was refused stays

  const SAID_FOR = 8000;

  document.addEventListener("htmx:afterSettle", () => {
    for (const said of document.querySelectorAll("#said .said:not(.refused, [data-leaves])")) {
      said.dataset.leaves = "";
      setTimeout(() => said.remove(), SAID_FOR);
    }
  });

  // --- times: the exact one in the reader's own zone

  function localTimes(part) {
    for (const time of part.querySelectorAll?.("time[datetime]") ?? []) {
      time.title = new Date(time.dateTime).toLocaleString();
    }
  }
  document.addEventListener("htmx:load", (event) => localTimes(event.detail.elt));

  // --- at the start

  for (const button of document.querySelectorAll("[data-theme-switch]")) {
    button.hidden = false;
    showTheme(button);
  }
  localTimes(document);
})();
