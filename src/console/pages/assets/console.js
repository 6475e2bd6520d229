// The console's only script: live counters, copying, keys, theme. Every page is complete without it.
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const words = Object.fromEntries(
  $$("[data-word]", $("template[data-words]").content).map((one) => [one.dataset.word, one.textContent]),
);
const say = (text) => { $("[data-said]").textContent = text; };
const keep = (name, value) => {
  document.cookie = `${name}=${value}; Path=/; Max-Age=31536000; SameSite=Strict`;
};

// --- copying
for (const button of $$("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = words.copied;
    say(words.copied);
    setTimeout(() => { button.textContent = words.copy; }, 2000);
  });
}

// --- theme: the links do the same by a request
const themes = $$("[data-theme-set]");
for (const theme of themes) {
  theme.addEventListener("click", (event) => {
    event.preventDefault();
    const word = theme.dataset.themeSet;
    document.documentElement.dataset.theme = word;
    keep("countersign-theme", word);
    $("meta[name=color-scheme]").content = word === "auto" ? "light dark" : word;
    for (const one of themes) one.removeAttribute("aria-current");
    theme.setAttribute("aria-current", "true");
  });
}

// --- keys, which can be turned off (WCAG 2.1.4)
const note = $("[data-keys-note]");
let keys = localStorage.getItem("countersign-keys") !== "off";
const rows = () => $$("[data-list] tbody tr, ol[data-list] > li");
let at = -1;

function help() {
  const dialog = document.createElement("dialog");
  const text = document.createElement("p");
  const close = document.createElement("button");
  text.textContent = words.help;
  close.textContent = words.close;
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  dialog.append(text, close);
  document.body.append(dialog);
  dialog.showModal();
}

function go(step) {
  const all = rows();
  if (all.length === 0) return;
  all[at]?.classList.remove("at");
  at = Math.min(Math.max(at + step, 0), all.length - 1);
  all[at].classList.add("at");
  ($("a", all[at]) ?? all[at]).focus();
  all[at].scrollIntoView({ block: "nearest" });
}

if (note) {
  const toggle = $("[data-keys]");
  const show = () => { toggle.textContent = keys ? words["keys-off"] : words["keys-on"]; };
  note.hidden = false;
  show();
  toggle.addEventListener("click", () => {
    keys = !keys;
    localStorage.setItem("countersign-keys", keys ? "on" : "off");
    show();
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, select, textarea, dialog");
    if (!keys || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") { event.preventDefault(); $("#q").focus(); }
    else if (event.key === "j") go(1);
    else if (event.key === "k") go(-1);
    else if (event.key === "?") help();
  });
}

// --- live: counters only. Rows never move; what is new is behind a link.
const live = $("[data-live]");
if (live && window.EventSource) {
  const state = $("[data-live-state]", live);
  const pause = $("[data-live-pause]", live);
  const fresh = $("[data-live-new]", live);
  const since = { decisions: Number(live.dataset.decisions), refusals: Number(live.dataset.refusals) };
  let paused = false;
  let source;

  const status = (word, off) => {
    if (state.textContent === word) return;
    state.textContent = word;
    live.classList.toggle("off", off);
    say(word);
  };
  const stop = () => { source?.close(); source = undefined; };
  const start = () => {
    if (paused || document.hidden || source) return;
    source = new EventSource("/live");
    source.addEventListener("open", () => status(words.live, false));
    source.addEventListener("error", () => {
      status(words.lost, true);
      // After an answer that is no stream, such as while the service starts, the browser does not try again by itself.
      if (source.readyState === EventSource.CLOSED) {
        stop();
        setTimeout(start, 2000);
      }
    });
    source.addEventListener("message", (event) => tell(JSON.parse(event.data)));
  };
  // A page of one thing has no newest entry: when the ledger has changed, it looks whether it would be another now.
  let looked = Number(live.dataset.changes);
  let latest = looked;
  let looking = false;
  async function compare() {
    if (looking || latest === looked || !fresh.hidden) return;
    looking = true;
    looked = latest;
    try {
      const answer = await fetch(location.pathname, { headers: { accept: "text/html" } });
      const html = answer.ok ? await answer.text() : "";
      if (html.includes(" data-digest=") && !html.includes(` data-digest="${live.dataset.digest}"`)) news(words.changed, location.pathname);
    } catch {
      // The stream says that the service is away.
    }
    setTimeout(() => { looking = false; compare(); }, 2000);
  }
  function news(text, href) {
    if (fresh.textContent === text) return;
    fresh.textContent = text;
    fresh.href = href;
    if (fresh.hidden) say(text);
    fresh.hidden = false;
  }
  function tell(counters) {
    if (live.dataset.digest) { latest = counters.changes; compare(); return; }
    for (const one of $$("[data-count]")) {
      if (one.dataset.count in counters) one.textContent = counters[one.dataset.count];
    }
    let count = 0;
    if (since.decisions) count += Math.max(0, counters.decisions - since.decisions);
    if (since.refusals) count += Math.max(0, counters.refusals - since.refusals);
    if (count > 0) news(`${count} ${words.new}`, location.pathname + location.search);
  }
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? words.resume : words.pause;
    if (paused) { stop(); status(words.paused, true); } else { status(words.live, false); start(); }
  });
  // Browsers open six connections to a host: pages that nobody sees keep none.
  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : start()));
  addEventListener("pagehide", stop);
  addEventListener("pageshow", start);
  live.hidden = false;
  start();
}
