// The console's pages in a real browser. Prints what failed, and "N passed, M failed" at the end.
//
// environment: COUNTERSIGN (the program), SCRATCH (a directory for this run), and that of the harness
import { spawn } from "node:child_process";
import { createServer, request } from "node:http";
import { createServer as createSocket } from "node:net";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SHOTS, attempt, check, context, eventually, examine, finish, isLeftOut, oddities, running } from "./support/harness.mjs";

const { COUNTERSIGN, SCRATCH } = process.env;

// --- the service --------------------------------------------------------------------------------

const freePort = () => new Promise((resolve) => {
  const socket = createSocket().listen(0, "127.0.0.1", () => {
    const { port } = socket.address();
    socket.close(() => resolve(port));
  });
});

async function serve(name, admin) {
  const [publicPort, port] = [await freePort(), await freePort()];
  const config = join(SCRATCH, `${name}.toml`);
  writeFileSync(config, `
[http]
listen = "127.0.0.1:${publicPort}"
[admin]
listen = "127.0.0.1:${port}"
${admin}
[ledger]
url = "sqlite://${SCRATCH}/${name}.db"
# Nobody is there: decisions stay pending until an operator parks them.
[amqp]
url = "amqp://127.0.0.1:1"
[[endpoints]]
name = "purchase"
plain = true
credentials = [ { action_callback_token = "fake-token-purchase" } ]
`);
  const one = { name, config, port, publicPort, log: "" };
  one.start = async () => {
    one.process = spawn(COUNTERSIGN, ["serve", "--config", config], { stdio: ["ignore", "pipe", "pipe"] });
    running.add(one.process);
    const keep = (piece) => { one.log += piece; };
    one.process.stdout.on("data", keep);
    one.process.stderr.on("data", keep);
    one.ended = new Promise((resolve) => one.process.on("exit", () => { running.delete(one.process); resolve(); }));
    await eventually(`${name} is ready`, async () => {
      if (one.process.exitCode !== null) throw new Error(one.log);
      return fetch(`http://127.0.0.1:${port}/readyz`).then((answer) => answer.status === 200, () => false);
    });
  };
  await one.start();
  return one;
}

async function decide(service, fields) {
  const body = JSON.stringify({ action_type: "APPROVE", user_id: "zhang3", instance_id: "PO-77", task_id: "n1", token: "fake-token-purchase", ...fields });
  const answer = await fetch(`http://127.0.0.1:${service.publicPort}/callbacks/purchase`, { method: "POST", body });
  return answer.json();
}
const run = (...words) => new Promise((resolve, reject) => {
  const child = spawn(COUNTERSIGN, words, { stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  child.stdout.on("data", (piece) => { said += piece; });
  child.stderr.on("data", (piece) => { said += piece; });
  child.on("exit", (code) => (code === 0 ? resolve(said) : reject(new Error(said))));
});

async function logIn(page, origin, token) {
  await page.goto(`${origin}/login`);
  await page.fill("input[name=token]", token);
  await page.click("main button");
  await page.waitForURL(`${origin}/`, { timeout: 5000 });
}

// --- a ledger with everything in it -------------------------------------------------------------

const people = `tokens = [ { name = "chen", role = "operate", token = "fake-token-of-chen" }, { name = "li4", role = "read", token = "fake-token-of-li4" } ]`;
const service = await serve("people", people);
const origin = `http://countersign.localhost:${service.port}`;
const ids = [];
for (let number = 1; number <= 8; number += 1) {
  ids.push((await decide(service, { instance_id: `PO-${70 + number}`, task_id: `n${number}`, user_id: number % 2 ? "zhang3" : "wang5" })).data.command_id);
}
await decide(service, { action_type: "HOLD", user_id: "zhang3", task_id: "n9" });
await decide(service, { token: "wrong" });
await run("ledger", "park", "--config", service.config, "--reason", "the queue is full", ids[0], ids[1], ids[2]);

// --- every page: access, width, weight ----------------------------------------------------------

const PAGES = {
  home: "/", decisions: "/decisions", filtered: "/decisions?state=parked&user_id=zhang3", none: "/decisions?user_id=nobody",
  wrong: "/decisions?before=x", decision: `/decisions/${ids[0]}`, pending: `/decisions/${ids[5]}`, refusals: "/refusals",
  refusal: "/refusals/1", parked: "/parked", confirm: "/parked/requeue?state=parked&endpoint=purchase&note=parked%20by%20an%20operator",
  findings: "/findings", acts: "/acts", health: "/health", why: "/why", whyzhang3: "/why?q=zhang3",
  whytime: `/why?q=${encodeURIComponent(new Date().toISOString())}`, missing: "/decisions/x",
};

await attempt("pages", async () => {
  for (const [width, height] of [[1280, 900], [320, 720]]) {
    const { made, page } = await context(origin, { viewport: { width, height } });
    await logIn(page, origin, "fake-token-of-chen");
    for (const lang of ["en", "zh"]) {
      for (const theme of ["light", "dark"]) {
        if (isLeftOut(lang, theme, width)) continue;
        await page.goto(`${origin}/health?lang=${lang}&theme=${theme}`);
        for (const [name, path] of Object.entries(PAGES)) {
          await examine(page, `${name} ${lang} ${theme} ${width}`, origin + path);
          await page.screenshot({ path: join(SHOTS, `${name}-${lang}-${theme}-${width}.png`), fullPage: true });
        }
      }
    }
    if (width === 320) {
      await page.goto(`${origin}/health?lang=zh&theme=dark`);
      const close = await page.evaluate(() => [...document.querySelectorAll(".list [data-label] > div")].filter((one) => one.offsetParent && one.getBoundingClientRect().left - one.parentElement.getBoundingClientRect().left < 64).length);
      check("on a phone the value of a cell stands beside its label", close === 0, close);
    }
    await made.close();
    const stranger = await context(origin, { viewport: { width, height } });
    for (const lang of ["en", "zh"]) {
      for (const theme of ["light", "dark"]) {
        if (isLeftOut(lang, theme, width)) continue;
        await examine(stranger.page, `login ${lang} ${theme} ${width}`, `${origin}/login?lang=${lang}&theme=${theme}`);
        await stranger.page.screenshot({ path: join(SHOTS, `login-${lang}-${theme}-${width}.png`), fullPage: true });
      }
    }
    await stranger.made.close();
  }
  // 200 % of 1280 px.
  const { made, page } = await context(origin, { viewport: { width: 640, height: 450 }, deviceScaleFactor: 2 });
  await logIn(page, origin, "fake-token-of-chen");
  for (const [name, path] of Object.entries(PAGES)) await examine(page, `${name} zoomed`, origin + path);
  await page.goto(`${origin}/`);
  await page.waitForFunction(() => performance.getEntriesByName("first-contentful-paint").length > 0);
  const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime);
  console.log(`first paint of the overview: ${Math.round(paint)} ms`);
  await made.close();
});

// --- without a script ---------------------------------------------------------------------------

await attempt("without a script", async () => {
  const { made, page } = await context(origin, { javaScriptEnabled: false, acceptDownloads: true });
  await page.goto(`${origin}/acts?actor=chen`);
  check("a stranger is led to the login", page.url().startsWith(`${origin}/login?next=`), page.url());
  await page.fill("input[name=token]", "wrong");
  await page.click("main button");
  check("a wrong token is told", (await page.textContent("main")).includes("no token of this service"));
  await page.fill("input[name=token]", "fake-token-of-chen");
  await page.click("main button");
  check("the login leads on", page.url() === `${origin}/acts?actor=chen`, page.url());
  await page.fill("#q", "wang5");
  await page.press("#q", "Enter");
  check("Why answers", (await page.textContent("main")).includes("Now parked."), await page.textContent("main"));
  await page.click(`main a[href="/decisions/${ids[1]}"]`);
  const stale = await made.newPage();
  await stale.goto(page.url());
  await page.click("summary:has-text('Requeue')");
  await page.fill("form[action$=requeue] input[name=reason]", "room again");
  await page.click("form[action$=requeue] button");
  check("one is requeued", page.url() === `${origin}/decisions/${ids[1]}?done=requeue` && (await page.textContent("[role=status].panel")).includes("Requeued.") && (await page.textContent("main")).includes("by chen · console · 127.0.0.1: room again"), await page.textContent("main"));
  await stale.click("summary:has-text('Requeue')");
  await stale.fill("form[action$=requeue] input[name=reason]", "again");
  await stale.click("form[action$=requeue] button");
  check("a page from before cannot act", (await stale.textContent("main")).includes("does not allow it any more"), await stale.textContent("main"));
  await stale.close();

  await page.goto(`${origin}/parked`);
  await page.click("text=Requeue these 2 commands");
  await run("ledger", "requeue", "--config", service.config, "--reason", "another operator", ids[2]);
  await page.fill("input[name=reason]", "room again");
  await page.fill("input[name=typed]", "3");
  await page.click("main button");
  check("a wrong number stops it", (await page.textContent("main")).includes("not the number of commands"), page.url());
  await page.fill("input[name=typed]", "2");
  await page.click("main button");
  const told = await page.textContent("main");
  check("what another operator did is told", told.includes("1 requeued, 1 changed meanwhile.") && told.includes("is now pending"), told);
  await page.reload();
  check("reloading repeats nothing", (await page.textContent("main")).includes("1 requeued, 1 changed meanwhile."));
  await page.goto(`${origin}/acts`);
  const acts = await page.textContent("main");
  for (const part of ["room again", "another operator", "login", "requeue", "park"]) check(`acts have: ${part}`, acts.includes(part), acts);

  await page.goto(`${origin}/decisions?user_id=zhang3`);
  const [file] = await Promise.all([page.waitForEvent("download"), page.click("text=CSV")]);
  const csv = readFileSync(await file.path(), "utf8");
  check("the export has what the filter has", csv.startsWith("\ufeff\"seq\"") && csv.split("\r\n").length === 6, csv);
  await page.goto(`${origin}/`);
  await page.click("text=Log out");
  check("logged out", page.url() === `${origin}/login`, page.url());
  await page.goto(`${origin}/decisions`);
  check("and stays out", page.url().startsWith(`${origin}/login`), page.url());
  await made.close();
});

// --- with keys only, and live -------------------------------------------------------------------

await attempt("keys and live", async () => {
  const { made, page } = await context(origin);
  await logIn(page, origin, "fake-token-of-chen");
  await run("ledger", "park", "--config", service.config, "--reason", "again", ids[0]);
  await page.goto(`${origin}/acts`);
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  check("j marks one row, in acts as well", (await page.locator("tr.at").count()) === 1 && (await page.locator("tr").nth(2).getAttribute("class")) === "at");
  const outlines = await page.evaluate(() => [document.querySelector("tr.at"), ...document.querySelectorAll("tr.at td")].filter((one) => getComputedStyle(one).outlineStyle !== "none").length);
  check("by one outline round the row", outlines === 1, outlines);
  await page.goto(`${origin}/decisions?state=parked`);
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await page.waitForURL(`${origin}/decisions/${ids[0]}`);
  const focused = () => page.evaluate(() => document.activeElement?.textContent?.trim() || document.activeElement?.name);
  const tabTo = async (wanted) => {
    for (let count = 0; count < 60; count += 1) {
      await page.keyboard.press("Tab");
      if ((await focused()) === wanted) return;
    }
    throw new Error(`no way to ${wanted} by Tab`);
  };
  await tabTo("Requeue");
  await page.keyboard.press("Enter");
  await tabTo("reason");
  await page.keyboard.type("by keys");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("main").textContent.includes("by keys"));
  check("a requeue by keys alone", true);
  await page.keyboard.press("?");
  check("? explains the keys", await page.isVisible("dialog"));
  await page.keyboard.press("Escape");
  await page.waitForSelector("dialog", { state: "detached" });
  await page.keyboard.press("/");
  check("/ leads to Why", (await page.evaluate(() => document.activeElement.id)) === "q");
  await page.click("main");
  await page.click("[data-keys]");
  await page.keyboard.press("?");
  check("keys can be turned off", (await page.locator("dialog").count()) === 0);
  await page.reload();
  await page.keyboard.press("?");
  check("and stay off", (await page.locator("dialog").count()) === 0);

  await page.click("[data-theme-set=dark]");
  check("the theme is switched in place", (await page.evaluate(() => document.documentElement.dataset.theme)) === "dark");
  await page.reload();
  check("and kept", (await page.evaluate(() => document.documentElement.dataset.theme)) === "dark");

  await page.goto(`${origin}/`);
  await page.waitForFunction(() => document.querySelector("[data-live-state]").textContent === "Live");
  const first = await page.textContent(".list tbody tr:first-child");
  await decide(service, { task_id: "live-1" });
  await page.waitForFunction(() => document.querySelector("[data-live-new]").textContent === "1 new", null, { timeout: 5000 });
  check("rows do not move", (await page.textContent(".list tbody tr:first-child")) === first);
  await page.click("[data-live-new]");
  await page.waitForFunction(() => document.querySelector(".list tbody tr:first-child")?.textContent.includes("live-1"), null, { timeout: 5000 });
  check("what is new is behind the link", true);

  // The page of one decision has no newest entry, but tells when it would look different.
  await page.goto(`${origin}/decisions/${ids[3]}`);
  await page.waitForFunction(() => document.querySelector("[data-live-state]").textContent === "Live");
  await run("ledger", "park", "--config", service.config, "--reason", "seen from the page", ids[3]);
  await page.waitForFunction(() => document.querySelector("[data-live-new]").textContent.includes("has changed"), null, { timeout: 30000 });
  await page.click("[data-live-new]");
  await page.waitForFunction(() => document.querySelector("main").textContent.includes("seen from the page"));
  check("a decision tells that it has changed", true);
  await page.goto(`${origin}/`);

  // A page whose service is killed says so, and finds it again by itself.
  await page.waitForFunction(() => document.querySelector("[data-live-state]").textContent === "Live");
  service.process.kill("SIGKILL");
  await service.ended;
  const killed = Date.now();
  await page.waitForFunction(() => document.querySelector("[data-live]").classList.contains("off"), null, { timeout: 3000 });
  console.log(`a killed service is noticed after ${Date.now() - killed} ms`);
  await service.start();
  const lost = () => page.evaluate(() => document.querySelector("[data-live-state]").textContent);
  // Sessions are known to the process alone: the page cannot be live until somebody logs in.
  await logIn(page, origin, "fake-token-of-chen");
  await eventually("live again", async () => (await lost()) === "Live");
  check("it is live again", true);
  await made.close();
});

await attempt("without tokens a page recovers by itself", async () => {
  const open = await serve("open", "");
  const there = `http://localhost:${open.port}`;
  const { made, page } = await context(there);
  await decide(open, {});
  await page.goto(there);
  const state = () => page.evaluate(() => document.querySelector("[data-live-state]").textContent);
  await eventually("live", async () => (await state()) === "Live");
  check("the actor is loopback", (await page.textContent("header")).includes("this machine"));
  check("there is no cookie", (await made.cookies()).length === 0);
  open.process.kill("SIGKILL");
  await open.ended;
  await eventually("lost", async () => (await state()).startsWith("No connection"), 3000);
  await open.start();
  await decide(open, { task_id: "n2" });
  await page.waitForFunction(() => document.querySelector("[data-live-new]").textContent === "1 new");
  check("it recovers and misses nothing", (await state()) === "Live");
  await made.close();
  open.process.kill("SIGKILL");
});

// --- requests of others -------------------------------------------------------------------------

await attempt("requests of others", async () => {
  const { made, page } = await context(origin);
  await logIn(page, origin, "fake-token-of-chen");
  // Another port of this very host: its pages get the cookie.
  const foreign = createServer((_, answer) => answer.setHeader("content-type", "text/html").end("<title>foreign</title>"));
  await new Promise((resolve) => foreign.listen(0, "127.0.0.1", resolve));
  for (const host of ["countersign.localhost", "localhost", "127.0.0.1", "evil.localhost"]) {
    for (const path of [`/decisions/${ids[5]}/park`, "/parked/requeue", "/login", "/logout"]) {
      const other = await made.newPage();
      await other.goto(`http://${host}:${foreign.address().port}/`);
      const [answer] = await Promise.all([
        other.waitForResponse((one) => one.url() === origin + path),
        other.evaluate((action) => {
          const form = document.createElement("form");
          Object.assign(form, { method: "post", action });
          for (const [name, value] of [["state", "pending"], ["reason", "foreign"], ["seqs", "1"], ["typed", "1"], ["token", "fake-token-of-chen"]]) {
            const input = document.createElement("input");
            Object.assign(input, { name, value });
            form.append(input);
          }
          document.body.append(form);
          form.submit();
        }, origin + path),
      ]);
      check(`a form of ${host} to ${path} is refused`, answer.status() === 403, answer.status());
      await other.close();
    }
  }
  foreign.close();
  await page.goto(`${origin}/decisions/${ids[5]}`);
  check("nothing was changed", (await page.textContent("main")).includes("pending"));
  const rebound = await new Promise((resolve) => {
    const one = request({ host: "127.0.0.1", port: service.port, path: "/login", method: "POST", headers: { Host: "evil.example", Accept: "text/html", Origin: "http://evil.example" } }, (answer) => resolve(answer.statusCode));
    one.end("token=fake-token-of-chen");
  });
  check("a rebound name is refused", rebound === 403, rebound);
  await made.close();
  const { made: looker, page: looks } = await context(origin);
  await logIn(looks, origin, "fake-token-of-li4");
  await looks.goto(`${origin}/decisions/${ids[5]}`);
  check("who only looks is offered no act", (await looks.locator("form[action*=park]").count()) === 0);
  const forced = await looks.evaluate(async (path) => (await fetch(path, { method: "POST", body: new URLSearchParams({ state: "pending", reason: "x" }), headers: { Accept: "text/html" } })).status, `/decisions/${ids[5]}/park`);
  check("and cannot act", forced === 403, forced);
  await looker.close();
});

// --- hostile texts ------------------------------------------------------------------------------

const HOSTILE = [
  "<script>alert(1)</script>", "\"><script>alert(1)</script>", "'><img src=x onerror=alert(1)>", "<svg onload=alert(1)>",
  "javascript:alert(1)", "</title><script>alert(1)</script>", "</textarea><script>alert(1)</script>", "<iframe srcdoc='<script>alert(1)</script>'>",
  "<a href=javascript:alert(1)>x</a>", "{{7*7}}", "${alert(1)}", "<%= 7 %>", "\u202egnp.exe", "a\u2066b\u2069", "\u0007\u001b[31mred", "\ufeffx",
  "=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(1)", "\t=1", "&#60;script&#62;", "&lt;b&gt;", "<b style=position:fixed;inset:0>x</b>",
  "<meta http-equiv=refresh content=0;url=//evil.example>", "<base href=//evil.example>", "<link rel=stylesheet href=//evil.example>",
  "<form action=//evil.example><button>x", "<!--", "]]>", "\\", "%3Cscript%3E", "' or 1=1 --", "../../etc/passwd", "//evil.example",
  "x".repeat(250), "审".repeat(80), "👩‍👩‍👧‍👦".repeat(10), "a b  c", "\u200b\u200d",
];
await attempt("hostile texts", async () => {
  let sent = 0;
  for (let round = 0; round < 5; round += 1) {
    for (const text of HOSTILE) {
      const place = ["user_id", "task_id", "instance_id", "approval_code", "action_context"][round];
      const answer = await decide(service, { task_id: `h${sent}`, [place]: round ? `${text}${round}` : text });
      await decide(service, { task_id: `h${sent}`, action_type: "HOLD", [place]: text });
      sent += 1;
      if (answer.data?.command_id) ids.push(answer.data.command_id);
    }
  }
  check("200 texts were sent", sent === 200, sent);
  const { made, page } = await context(origin, { acceptDownloads: true });
  await logIn(page, origin, "fake-token-of-chen");
  const visit = async (path) => {
    await page.goto(origin + path);
    const html = await page.content();
    check(`nothing of a stranger is an element: ${path}`, !/<(script>|img|iframe|svg onload|base|b |meta http)/.test(html.replace(/<svg class="chart"/, "")), path);
    check(`no character acts: ${path}`, !/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\ufeff]/.test(html), path);
  };
  let next = "/decisions";
  while (next) {
    await visit(next);
    next = await page.evaluate(() => document.querySelector("a[rel=next]")?.getAttribute("href"));
  }
  next = "/refusals";
  while (next) {
    await visit(next);
    next = await page.evaluate(() => document.querySelector("a[rel=next]")?.getAttribute("href"));
  }
  for (const id of ids.slice(-80)) await visit(`/decisions/${id}`);
  for (let number = 2; number < 60; number += 1) await visit(`/refusals/${number}`);
  for (const text of HOSTILE) {
    for (const path of ["/why?q=", "/decisions?user_id=", "/refusals?task_id=", "/acts?actor=", "/decisions?since="]) await visit(path + encodeURIComponent(text));
  }
  const [file] = await Promise.all([page.waitForEvent("download"), page.goto(`${origin}/decisions.csv`).catch(() => {})]);
  const cells = readFileSync(await file.path(), "utf8").slice(1).split(/,|\r\n/);
  const formulas = cells.filter((cell) => /^"?\s*[=+\-@]/.test(cell));
  check("no cell is a formula", formulas.length === 0, formulas.slice(0, 3));
  await made.close();
});

check("no dialog, no error, no report of the policy, no request to another origin", oddities.length === 0, oddities.slice(0, 10).join("\n"));
service.process.kill("SIGTERM");
await service.ended;
rmSync(SCRATCH, { recursive: true, force: true });
await finish();
