// What the programs of tests/browser share: counting, the browser, what a page must never do, what every page must be.
//
// environment: CHROMIUM (the browser), SHOTS (a directory for screenshots), LOOKS (`few`: pages are looked at in English, light and
// wide, and in Chinese, dark and narrow)
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const { CHROMIUM, LOOKS } = process.env;
export const { SHOTS } = process.env;
mkdirSync(SHOTS, { recursive: true });
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const FEW = ["en light 1280", "zh dark 320"];
export const isLeftOut = (lang, theme, width) => LOOKS === "few" && !FEW.includes(`${lang} ${theme} ${width}`);

// --- counting -----------------------------------------------------------------------------------

let passed = 0;
let failed = 0;
export function check(what, fine, seen = "") {
  if (fine) passed += 1;
  else {
    failed += 1;
    console.log(`FAILED: ${what}: ${typeof seen === "string" ? seen : JSON.stringify(seen)}`);
  }
}
export async function attempt(what, step) {
  try {
    await step();
  } catch (error) {
    check(what, false, error.stack ?? String(error));
  }
}
export async function eventually(what, reached, patience = 15000) {
  const end = Date.now() + patience;
  while (Date.now() < end) {
    const seen = await reached();
    if (seen) return seen;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`not within ${patience} ms: ${what}`);
}

// --- processes ----------------------------------------------------------------------------------

// Whatever still runs ends with this program.
export const running = new Set();
process.on("exit", () => running.forEach((one) => one.kill("SIGKILL")));

// --- what a page must never do ------------------------------------------------------------------

export const oddities = [];
export function watch(page, origin) {
  page.on("dialog", async (dialog) => { oddities.push(`${page.url()}: a dialog: ${dialog.message()}`); await dialog.dismiss(); });
  page.on("pageerror", (error) => oddities.push(`${page.url()}: ${error}`));
  page.on("console", (message) => {
    // A page whose answer is an error says so here as well.
    if (message.type() === "error" && !/status of (4|5)\d\d|net::ERR_/.test(message.text())) oddities.push(`${page.url()}: ${message.text()}`);
  });
  page.on("request", (one) => {
    if (new URL(one.url()).origin !== origin) oddities.push(`${page.url()}: a request to ${one.url()}`);
  });
}

export const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--force-color-profile=srgb"] });
export async function context(origin, options = {}) {
  const made = await browser.newContext({ viewport: { width: 1280, height: 900 }, locale: "en-US", ...options });
  const page = await made.newPage();
  watch(page, origin);
  return { made, page };
}

// --- what every page must be --------------------------------------------------------------------

// Opens an address. Requests for a stream of events do not count.
export async function examine(page, name, address, stream) {
  let requests = 0;
  const count = (one) => { if (!stream || !one.url().endsWith(stream)) requests += 1; };
  // What the page before still asks for is not this page's.
  await page.goto("about:blank");
  page.on("request", count);
  const answer = await page.goto(address);
  const weight = (await answer.body()).length;
  await page.waitForLoadState("load");
  page.off("request", count);
  check(`${name}: at most 80 KB`, weight <= 80 << 10, weight);
  check(`${name}: at most 6 requests`, requests <= 6, requests);
  const wide = await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
  check(`${name}: no horizontal scroll`, wide <= 0, wide);
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, {
    runOnly: { type: "tag", values: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] },
  }));
  const seen = violations.map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => `${node.html} ${node.failureSummary}`).join(" | ")}`);
  check(`${name}: accessible`, violations.length === 0, seen.join("\n"));
}

// Prints the sum and ends.
export async function finish() {
  await browser.close();
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
}
