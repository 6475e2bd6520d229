// The emulator's page in a real browser, with the demo behind it. Prints what failed, and "N passed, M failed" at the end.
//
// environment: COUNTERSIGN (the program), AMQP_URL (a broker), SCRATCH (a directory for this run), and that of the harness
import { spawn } from "node:child_process";
import { request } from "node:http";
import { join } from "node:path";
import { SHOTS, attempt, check, context, eventually, examine, finish, isLeftOut, oddities, running } from "./support/harness.mjs";

const { COUNTERSIGN, AMQP_URL, SCRATCH } = process.env;

// --- the demo -----------------------------------------------------------------------------------

async function demo(amqpUrl, words = ["dev"]) {
  const began = Date.now();
  const child = spawn(COUNTERSIGN, [...words, "--listen", "127.0.0.1:0"], {
    env: { ...process.env, TMPDIR: SCRATCH, COUNTERSIGN_AMQP_URL: amqpUrl },
    stdio: ["ignore", "ignore", "pipe"],
  });
  running.add(child);
  const one = { child, began, log: "" };
  child.stderr.on("data", (piece) => { one.log += piece; });
  one.ended = new Promise((resolve) => child.on("exit", (code) => { running.delete(child); resolve(code); }));
  one.origin = await eventually("the demo is ready", () => {
    if (child.exitCode !== null) throw new Error(one.log);
    return /^ready at (\S+)\n/m.exec(one.log)?.[1];
  }, 30000);
  one.get = async (path) => (await fetch(one.origin + path)).json();
  one.stop = async () => {
    child.kill("SIGTERM");
    return one.ended;
  };
  return one;
}

// --- from one command to a card that says APPROVED ----------------------------------------------

const stage = await demo(AMQP_URL);
const { origin } = stage;
await attempt("from one command to a card that says approved", async () => {
  const { made, page } = await context(origin);
  await page.goto(`${origin}/`);
  await page.waitForSelector(".broker.up");
  await page.locator("article.card", { hasText: "PO-80" }).locator("button.approve").click();
  await page.waitForSelector("#card .step.done");
  const took = Date.now() - stage.began;
  console.log(`from the command to the card: ${took} ms`);
  check("approved within 10 s", took <= 10000, took);
  check("the address is that of the tap", /\/taps\/\d+/.test(page.url()), page.url());
  check("the phone shows it", await page.locator("article.card.approved", { hasText: "PO-80" }).count() === 1);
  check("the toast is the platform's", (await page.textContent(".toast")).includes("提交成功"));
  const isInSight = () => page.evaluate(() => {
    const { top, bottom } = document.querySelector(".toast").getBoundingClientRect();
    return top >= 0 && bottom <= innerHeight;
  });
  check("the toast is in sight", await isInSight());
  await page.evaluate(() => scrollTo(0, 300));
  check("and stays there", await isInSight());
  check("the console's address is said", /^ *console +http:\/\/127\.0\.0\.1:\d+\/ /m.test(stage.log), stage.log);
  check("the demo has no fault to report", !/error|warn/i.test(stage.log), stage.log);
  for (const step of ["tap", "request", "answer", "command", "worker", "card"]) {
    check(`${step} is done`, await page.locator(`#${step} .step.done`).count() === 1, await page.locator(`#${step}`).innerText());
  }
  await page.goto(`${origin}/`);
  const paint = await eventually("the first paint", () => page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime));
  console.log(`first paint: ${Math.round(paint)} ms`);
  check("first paint within 250 ms", paint <= 250, paint);

  // A task of the list is turned by its instance.
  await page.goto(`${origin}/`);
  await page.locator("article.card", { hasText: "PO-78" }).locator("button.reject").click();
  await page.waitForSelector("#card .step.done");
  check("the task is rejected", (await page.textContent("#card")).includes("Rejected"), await page.textContent("#card"));
  await page.click(".lists a >> text=Done");
  await page.waitForSelector("article.card.rejected");

  // The worker says something else, and the card follows.
  await page.goto(`${origin}/taps/1`);
  await page.click("#worker button[value=refused]");
  await page.waitForSelector("#worker .step.failed");
  await page.waitForSelector("#card:has-text('预算不足')");
  check("what countersign has shown is done", await page.locator("#card .step.done").count() === 1);
  check("the page says what the worker does now", (await page.textContent(".broker")).includes("refused"), await page.textContent(".broker"));
  await page.click("#worker button[value=applied]");
  await page.waitForSelector("#card .step.done");

  // Another page's tap shows here by itself.
  await page.goto(`${origin}/`);
  const other = await context(origin);
  await other.page.goto(`${origin}/`);
  await other.page.locator("article.card", { hasText: "PO-81" }).locator("button.approve").click();
  await page.waitForSelector("article.card.approved:has-text('PO-81')");
  await page.waitForSelector("#card .step.done");
  check("it is live", (await page.textContent(".live")).includes("live"));
  await other.made.close();
  await made.close();
});

// --- every view, without a script ---------------------------------------------------------------

await attempt("without a script", async () => {
  const { made, page } = await context(origin, { javaScriptEnabled: false });
  await page.goto(`${origin}/taps/1`);
  check("decrypted", (await page.textContent("#request pre")).includes('"action_type": "APPROVE"'));
  check("the token is masked", /"token": "\*+"/.test(await page.textContent("#request pre")));
  await page.click("#request >> text=as sent");
  check("as sent", (await page.textContent("#request pre")).includes("POST /callbacks/purchase HTTP/1.1"));
  await page.click("#request >> text=hex");
  for (const part of ["iv", "cipher", "plain", "pad"]) check(`hex has ${part}`, await page.locator(`.hex .${part}`).count() > 0);
  check("parts have labels", (await page.textContent(".hex .pad")).includes("padding"));
  await page.click("#request >> text=curl");
  const curl = await page.textContent("#request pre");
  check("curl", curl.startsWith("curl -i 'http://127.0.0.1:"), curl);

  await page.click("#request >> text=Replay");
  check("a replay is a duplicate", (await page.textContent("#answer")).includes("200 duplicate"), await page.textContent("#answer"));
  check("and the same command", (await page.textContent("#command")).includes("The same command as tap 1"), await page.textContent("#command"));
  await page.goto(`${origin}/taps/1`);
  await page.click("text=Edit, then send");
  check("the body has a line for each member", (await page.inputValue("textarea")).split("\n").length > 4);
  await page.fill("textarea", (await page.inputValue("textarea")).replace("APPROVE", "HOLD").replace("zhang3", "wang5"));
  await page.click("main button");
  check("an edited body is sent", (await page.textContent("#answer")).includes("422 action_not_allowed"), await page.textContent("#answer"));
  check("who does it is what the body says", (await page.textContent("#tap")).includes("wang5"), await page.textContent("#tap"));
  const why = await page.getAttribute("#command a:has-text('Ask the console why')", "href");
  const answer = await (await fetch(why, { headers: { accept: "text/html" } })).text();
  check("the console says why", answer.includes("action_not_allowed"), why);
  check("and is encrypted again", (await page.textContent("#request pre")).includes('"action_type": "HOLD"'));

  await page.click("text=Cut off RabbitMQ");
  await page.waitForSelector(".broker.away");
  check("cut off by hand", (await page.textContent(".broker")).includes("commands wait in the ledger"));
  await page.click("text=Reconnect");
  await eventually("connected again", async () => {
    await page.goto(`${origin}/`);
    return page.locator(".broker.up").count();
  });
  await page.selectOption("#user", "li4");
  await page.click("text=Switch");
  check("another user", page.url().includes("user=li4") && (await page.locator("#phone article.card").count()) >= 1, page.url());
  await page.click("text=New request");
  check("a new request", (await page.textContent("#phone")).includes("stapler"));
  await page.click("text=New card");
  check("a new card", await page.locator("button.approve").count() >= 3);
  await page.click("header >> text=中文");
  check("Chinese", (await page.textContent("h1")) === "发生了什么" && (await page.getAttribute("html", "lang")) === "zh-CN");
  await page.goto(`${origin}/`);
  check("the language is remembered", (await page.textContent("h1")) === "发生了什么");
  await page.click("text=深色");
  check("dark", (await page.getAttribute("html", "data-theme")) === "dark");
  await page.click("text=全部记录");
  check("all taps are listed", await page.locator(".taps li").count() >= 4);
  await made.close();
});

// --- scenarios ----------------------------------------------------------------------------------

const run = (...words) => new Promise((resolve) => {
  const child = spawn(COUNTERSIGN, words, { stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  child.stdout.on("data", (piece) => { said += piece; });
  child.stderr.on("data", (piece) => { said += piece; });
  child.on("exit", (code) => resolve({ code, said }));
});
await attempt("scenarios", async () => {
  const { made, page } = await context(origin);
  page.setDefaultTimeout(60000);
  const { scenarios } = await stage.get("/emulator/scenarios");
  check("ten scenarios", scenarios.length === 10, scenarios.length);
  for (const { name } of scenarios) {
    await page.goto(`${origin}/scenarios`);
    await page.click(`main a[href^="/scenarios/${name}"]`);
    await page.click("main button:not(.copying)");
    check(`scenario ${name} says that it runs`, await page.locator("button:has-text('Running…'), .checks").count() > 0);
    await page.waitForSelector(".checks");
    check(`scenario ${name} has a result`, /^✓ all \d+ as expected$/.test(await page.textContent(".result")), await page.textContent(".result"));
    const seen = await page.textContent("main");
    const fine = await page.locator(".checks .state.done").count();
    check(`scenario ${name}`, fine >= 2 && await page.locator(".checks .state.failed, .problem").count() === 0, seen);
    check(`scenario ${name} has its command line`, seen.includes(`countersign emulator scenario ${name} --url ${origin}`), seen);
    await page.locator(".checks a").first().click();
    check(`scenario ${name} leads to a tap`, await page.locator(".story").count() === 1);
  }
  await made.close();
  const told = await run("emulator", "scenario", "strangers", "--url", origin);
  check("on the command line", told.code === 0 && told.said.includes("403 unauthenticated") && !told.said.includes("DIFFERS"), told.said);
});

// --- requests of other pages --------------------------------------------------------------------

await attempt("other pages", async () => {
  const post = (path, headers) => new Promise((resolve, reject) => {
    const one = request(origin + path, { method: "POST", headers: { "content-type": "application/x-www-form-urlencoded", ...headers } }, (answer) => {
      answer.resume();
      resolve(answer.statusCode);
    });
    one.on("error", reject);
    one.end("open=false&manner=silent&action_type=APPROVE&body=x");
  });
  for (const path of ["/do/tap", "/do/valve", "/do/taps/1/replay", "/do/taps/1/edit", "/do/taps/1/worker", "/do/new/card", "/do/scenarios/double-tap"]) {
    for (const headers of [
      {}, { origin: "null" }, { origin: "http://evil.example" }, { origin: "http://127.0.0.1:1" },
      { "sec-fetch-site": "same-site" }, { "sec-fetch-site": "cross-site" }, { "sec-fetch-site": "none" },
      { host: "evil.example", "sec-fetch-site": "same-origin" },
    ]) check(`${path} ${JSON.stringify(headers)}`, (await post(path, headers)) === 403);
  }
  const { made, page } = await context("null");
  await page.setContent(`<form method="post" action="${origin}/do/valve"><input name="open" value="false"><button>x</button></form>`);
  const [answer] = await Promise.all([page.waitForResponse(`${origin}/do/valve`), page.click("button")]);
  check("a form of another page", answer.status() === 403, answer.status());
  oddities.splice(0, oddities.length, ...oddities.filter((oddity) => !oddity.includes("/do/valve")));
  await made.close();
});

// --- every page: access, width, weight ----------------------------------------------------------

const PAGES = {
  home: "/", tap: "/taps/1", hex: "/taps/1?view=hex", sent: "/taps/1?view=sent", refused: "/taps/5", gone: "/taps/999",
  done: "/?list=done", li4: "/?user=li4", started: "/?user=li4&list=started", cc: "/?list=cc", taps: "/taps", edit: "/taps/1/edit",
  scenarios: "/scenarios", scenario: "/scenarios/double-tap", unplayed: "/scenarios/nothing",
};
await attempt("pages", async () => {
  for (const [width, height] of [[1280, 900], [320, 720]]) {
    const { made, page } = await context(origin, { viewport: { width, height } });
    for (const lang of ["en", "zh"]) {
      for (const theme of ["light", "dark"]) {
        if (isLeftOut(lang, theme, width)) continue;
        await page.goto(`${origin}/?lang=${lang}&theme=${theme}`);
        for (const [name, path] of Object.entries(PAGES)) {
          await examine(page, `${name} ${lang} ${theme} ${width}`, origin + path, "/emulator/events");
          await page.screenshot({ path: join(SHOTS, `emulator-${name}-${lang}-${theme}-${width}.png`), fullPage: true });
        }
      }
    }
    await made.close();
  }
});

// The pictures of README.md.
await attempt("pictures", async () => {
  const { made, page } = await context(origin, { viewport: { width: 1280, height: 800 }, colorScheme: "light" });
  for (const lang of ["en", "zh"]) {
    await page.goto(`${origin}/taps/1?lang=${lang}&theme=light&view=hex`);
    await page.waitForSelector(".live:not([hidden])");
    await page.screenshot({ path: join(SHOTS, `README-emulator-${lang}.png`) });
  }
  await made.close();
});

// The console of the same demo, whose decisions have come to their end.
await attempt("the console of the demo", async () => {
  const [, console_at] = /^ *console +(\S+)\/ /m.exec(stage.log);
  const { taps } = await stage.get("/emulator/taps");
  const { made, page } = await context(console_at, { viewport: { width: 1280, height: 800 }, colorScheme: "light" });
  const shown = taps.find((tap) => tap.answer?.word === "accepted" && tap.report?.outcome === "applied" && tap.turns.some((turn) => !turn.by_itself));
  for (const lang of ["en", "zh"]) {
    await page.goto(`${console_at}/decisions/${shown.answer.command_id}?lang=${lang}`);
    const timeline = await page.textContent("main");
    for (const word of ["published", "applied", "shown"]) check(`the timeline says ${word}, ${lang}`, timeline.includes(word), timeline);
    await page.screenshot({ path: join(SHOTS, `README-console-${lang}.png`) });
  }
  await made.close();
});

await attempt("the end", async () => {
  const code = await stage.stop();
  check("the demo ends well", code === 0, `${code} ${stage.log}`);
});

// --- without a broker ---------------------------------------------------------------------------

await attempt("without a broker", async () => {
  // The same by its other name.
  const alone = await demo("amqp://127.0.0.1:1", ["emulator", "--demo"]);
  const { made, page } = await context(alone.origin);
  await page.goto(`${alone.origin}/`);
  await page.waitForSelector(".broker.away");
  await page.locator("button.approve").first().click();
  await page.waitForSelector("#answer .step.done");
  check("it accepts", (await page.textContent("#answer")).includes("200 accepted"), await page.textContent("#answer"));
  check("and says where the command is", (await page.textContent("#command")).includes("waiting for RabbitMQ"), await page.textContent("#command"));
  await made.close();
  check("it ends well", (await alone.stop()) === 0, alone.log);
});

check("no page did what it must not", oddities.length === 0, oddities.join("\n"));
await finish();
