// Makes the page live. Without it everything works by links and forms.

const policy = globalThis.trustedTypes
  ? trustedTypes.createPolicy("cs", { createHTML: (text) => text })
  : { createHTML: (text) => text };
const words = document.body.dataset;
const sign = document.querySelector(".live");

function say(text) {
  if (!sign) return;
  sign.hidden = false;
  if (sign.textContent !== text) sign.textContent = text;
}

// --- copy ---------------------------------------------------------------------------------------

function offerCopies() {
  if (!navigator.clipboard) return;
  for (const block of document.querySelectorAll("pre.copy")) {
    if (block.nextElementSibling?.classList.contains("copying")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copying";
    button.textContent = words.copy;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.textContent);
      button.textContent = words.copied;
    });
    block.after(button);
  }
}

// --- live ---------------------------------------------------------------------------------------

// What somebody is in the middle of is left alone: an input with text, an open menu, a selection.
function isBusy() {
  const active = document.activeElement;
  if (active?.matches("select, textarea")) return true;
  if ([...document.querySelectorAll("input.reason")].some((input) => input.value !== "")) return true;
  return !getSelection()?.isCollapsed;
}

// How to find an element again in another rendering of the page.
function pathOf(element) {
  const path = [];
  for (let at = element; at && at.id !== "live"; at = at.parentElement) {
    path.unshift([...at.parentElement.children].indexOf(at));
  }
  return path;
}

function redraw(text) {
  const fresh = new DOMParser().parseFromString(policy.createHTML(text), "text/html").getElementById("live");
  const old = document.getElementById("live");
  if (!fresh || !old) return;
  old.dataset.count = fresh.dataset.count;
  if (fresh.innerHTML === old.dataset.drawn) return;
  const drawn = fresh.innerHTML;
  const open = [...old.querySelectorAll("details")].map((details) => details.open);
  const scrolled = [...old.querySelectorAll("pre, .wide")].map((block) => [block.scrollTop, block.scrollLeft]);
  const same = old.querySelector(".story")?.dataset.tap === fresh.querySelector(".story")?.dataset.tap;
  const active = old.contains(document.activeElement) ? pathOf(document.activeElement) : null;
  const [x, y] = [scrollX, scrollY];
  document.title = new DOMParser().parseFromString(policy.createHTML(text), "text/html").title;
  old.replaceChildren(...fresh.childNodes);
  old.dataset.drawn = drawn;
  if (same) {
    old.querySelectorAll("details").forEach((details, at) => { details.open = open[at] ?? false; });
    old.querySelectorAll("pre, .wide").forEach((block, at) => block.scrollTo(...(scrolled[at] ?? [0, 0]).reverse()));
  }
  offerCopies();
  if (active) active.reduce((at, child) => at?.children[child], old)?.focus({ preventScroll: true });
  scrollTo(x, y);
}

let looking = false;
let again = false;

async function look() {
  if (looking || isBusy()) {
    again = true;
    return;
  }
  looking = true;
  again = false;
  try {
    const answer = await fetch(location.href.split("#")[0], { headers: { accept: "text/html" } });
    const text = await answer.text();
    if (isBusy()) again = true;
    else redraw(text);
  } catch {
    say(`○ ${words.lost}`);
  } finally {
    looking = false;
  }
  if (again && !isBusy()) look();
}

let stream = null;

function listen() {
  // A hidden page needs no stream: a browser has six connections for this host.
  if (stream || document.hidden || !document.getElementById("live")) return;
  stream = new EventSource("/emulator/events");
  stream.addEventListener("message", (event) => {
    say(`● ${words.live}`);
    if (event.data !== document.getElementById("live").dataset.count) look();
  });
  stream.addEventListener("error", () => say(`○ ${words.lost}`));
}

function hush() {
  stream?.close();
  stream = null;
}

document.addEventListener("visibilitychange", () => (document.hidden ? hush() : listen()));
addEventListener("pagehide", hush);
addEventListener("pageshow", listen);
addEventListener("focusout", () => again && setTimeout(look));

// Switching the user needs no button then.
document.addEventListener("change", (event) => {
  if (event.target.matches(".users select")) event.target.form.submit();
});

// What takes a while says that it runs, and is not begun twice.
document.addEventListener("submit", (event) => {
  const button = event.target.querySelector("button[data-busy]");
  if (!button) return;
  button.textContent = button.dataset.busy;
  setTimeout(() => { button.disabled = true; });
});

offerCopies();
listen();
