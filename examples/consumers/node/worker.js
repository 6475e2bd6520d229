// A worker for countersign's commands, with amqplib. See ../README.md.
import { createPublicKey, timingSafeEqual, verify } from "node:crypto";
import { appendFileSync, closeSync, existsSync, fsyncSync, openSync, readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { connect } from "amqplib";
import { Webhook } from "standardwebhooks";

const { values: options } = parseArgs({
  options: {
    queue: { type: "string", default: "countersign.commands" },
    store: { type: "string", default: "handled.log" }, // remembers what was done: a message_id per line
    count: { type: "string" }, // end after so many messages
    idle: { type: "string" }, // end after so many seconds without a message
    report: { type: "string" }, // tell countersign what became of each command: countersign.outcomes
  },
});

// A file is enough for one worker. Several workers share a table with a unique message_id, and write to it in the
// transaction that changes the task.
const handled = new Set(existsSync(options.store) ? readFileSync(options.store, "utf8").split("\n") : []);
const store = openSync(options.store, "a");

function remember(messageId) {
  appendFileSync(store, `${messageId}\n`);
  fsyncSync(store);
  handled.add(messageId);
}

// If there are any, only what one of them has signed is taken: whsec_… or whpk_…, separated by blanks. Two while rotating.
const keys = (process.env.VERIFY_KEYS ?? "").split(" ").filter((key) => key);

/** What all Ed25519 public keys begin with, before their 32 bytes (RFC 8410). */
const ED25519 = Buffer.from("302a300506032b6570032100", "hex");

function signedBy(key, [id, time, signatures], body) {
  if (!key.startsWith("whpk_")) {
    // Not Webhook.verify(), which refuses what is older than five minutes: a command may wait in a queue for days, and
    // `handled` tells what comes again.
    const wanted = Buffer.from(new Webhook(key).sign(id, new Date(Number(time) * 1000), body));
    return signatures.map((text) => Buffer.from(text)).some((one) => one.length === wanted.length && timingSafeEqual(one, wanted));
  }
  const der = Buffer.concat([ED25519, Buffer.from(key.slice("whpk_".length), "base64")]);
  const publicKey = createPublicKey({ key: der, format: "der", type: "spki" });
  const content = Buffer.concat([Buffer.from(`${id}.${time}.`), body]);
  return signatures
    .filter((text) => text.startsWith("v1a,"))
    .some((text) => verify(null, content, publicKey, Buffer.from(text.slice("v1a,".length), "base64")));
}

/** Throws unless one of the keys has signed the message. Headers other than these three are not signed. */
function checkSignature(message) {
  const [id, time, signatures] = ["id", "timestamp", "signature"].map((name) => message.properties.headers?.[`webhook-${name}`]);
  if (!id || !time || !signatures) throw new Error("not signed");
  const headers = [id, time, String(signatures).split(" ")];
  if (!keys.some((key) => signedBy(key, headers, message.content))) throw new Error("not signed by a key that is known here");
}

/** The command; throws if the message is none. */
function read(message) {
  if (keys.length) checkSignature(message);
  const text = new TextDecoder("utf-8", { fatal: true }).decode(message.content);
  const command = JSON.parse(text); // ids are strings, so nothing is lost in a double
  if (command?.schema !== "approval.command/1") throw new Error("not an approval.command/1");
  if (!["approve", "reject", "custom"].includes(command.action)) throw new Error("no action that is known here");
  if (typeof command.task !== "object" || command.command_id !== message.properties.messageId) {
    throw new Error("not a whole command");
  }
  return command;
}

/** Tell your approval system; if it fails, the command comes again.
 *
 *  If command.repeats is set, the same decision came before, as the command of that id: act only if your task has been opened
 *  again since; if not, it is a replay: change nothing, and report `refused`. command.conflicts_with names an opposite decision
 *  of the same operator: the later one counts, unless it repeats one that is older still. */
async function act(_command) {}

async function handle(message, command) {
  const id = message.properties.messageId;
  const fresh = !handled.has(id);
  if (fresh) {
    await act(command);
    remember(id);
  }
  const earlier = ["repeats", "conflicts_with"].filter((name) => command[name]).map((name) => ` ${name} ${command[name]}`);
  return `${fresh ? "handled" : "duplicate"} ${id} ${command.action} ${command.task.task_id}${earlier.join("")}`;
}

/** Tells countersign, which shows it to the approver; see ../python-pika/worker.py for all that can be told. To tell it again
 *  changes nothing. Rejects if it is not in the queue then: the worker ends, and the command comes again. */
async function report(channel, command) {
  const outcome = {
    schema: "approval.outcome/1",
    command_id: command.command_id,
    outcome: "applied",
    status: null,
    message: null,
    instance: null,
  };
  let returned = false;
  const onReturn = () => (returned = true);
  channel.once("return", onReturn);
  await new Promise((resolve, reject) => {
    const properties = { persistent: true, mandatory: true, contentType: "application/json", type: "approval.outcome.v1" };
    channel.publish("countersign.outcomes", options.report, Buffer.from(JSON.stringify(outcome)), properties, (problem) =>
      problem ? reject(problem) : resolve(),
    );
  });
  channel.off("return", onReturn);
  if (returned) throw new Error(`there is no queue ${options.report}`);
}

const connection = await connect(process.env.AMQP_URL ?? "amqp://guest:guest@127.0.0.1:5672/%2f");
const channel = await connection.createChannel();
await channel.prefetch(20); // without it the broker would hand over the whole queue
const reports = options.report && (await connection.createConfirmChannel());

let seen = 0;
let last = Date.now();
let chain = Promise.resolve(); // one message after the other, in the order of the queue
let finish;
const finished = new Promise((resolve) => (finish = resolve));
process.once("SIGTERM", finish).once("SIGINT", finish);
connection.on("close", finish).on("error", (problem) => {
  console.error(`the broker is away: ${problem.message}`);
  process.exitCode = 1; // systemd or Kubernetes starts it again
});

const onMessage = async (message) => {
  let command;
  try {
    command = read(message);
  } catch (problem) {
    console.log(`rejected ${message.properties.messageId}: ${problem.message}`);
    channel.reject(message, false); // not to be had again, but not lost either: it goes to countersign.dead
    return;
  }
  const line = await handle(message, command);
  if (reports) await report(reports, command);
  console.log(line);
  channel.ack(message);
};

let stopping = false;
const { consumerTag } = await channel.consume(options.queue, (message) => {
  if (message === null) return finish(); // the queue was deleted
  chain = chain.then(async () => {
    if (stopping) return; // given back to the broker when the channel closes
    await onMessage(message);
    last = Date.now();
    if (++seen === Number(options.count)) {
      stopping = true;
      finish();
    }
  });
  chain.catch((problem) => {
    console.error(problem);
    process.exitCode = 1;
    finish();
  });
});
const watch = setInterval(() => {
  if (options.idle && Date.now() - last > Number(options.idle) * 1000) finish();
}, 200);

await finished;
stopping = true;
clearInterval(watch);
try {
  await channel.cancel(consumerTag);
  await chain;
  await channel.close(); // what was written before this has reached the broker
  await connection.close();
} catch (problem) {
  console.error(`while closing: ${problem.message}`);
  process.exitCode = 1;
}
closeSync(store);
