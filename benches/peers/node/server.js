// A peer: fastify, a confirm channel of amqplib, node:crypto. Answers after the broker's confirm of a persistent message.
//
// environment: LISTEN (host:port), AMQP_URL, EXCHANGE, TOKEN, KEY; PROCESSES (default 1)
'use strict';

const cluster = require('node:cluster');
const { createDecipheriv, createHash, randomUUID, timingSafeEqual } = require('node:crypto');
const amqplib = require('amqplib');
const fastify = require('fastify');

const key = createHash('sha256').update(process.env.KEY).digest();
const tokenHash = createHash('sha256').update(process.env.TOKEN).digest();

function open(body) {
  if (typeof body?.encrypt !== 'string') return null;
  try {
    const sealed = Buffer.from(body.encrypt, 'base64');
    const decipher = createDecipheriv('aes-256-cbc', key, sealed.subarray(0, 16));
    const plain = Buffer.concat([decipher.update(sealed.subarray(16)), decipher.final()]);
    const callback = JSON.parse(plain);
    const presented = createHash('sha256').update(String(callback.token)).digest();
    return timingSafeEqual(presented, tokenHash) ? { plain, callback } : null;
  } catch {
    return null;
  }
}

async function serve() {
  const connection = await amqplib.connect(process.env.AMQP_URL);
  const channel = await connection.createConfirmChannel();
  const publish = (content, messageId) =>
    new Promise((resolve, reject) => {
      const options = { persistent: true, mandatory: true, contentType: 'application/json', messageId };
      channel.publish(process.env.EXCHANGE, 'approval.bench.-.approve', content, options, (error) =>
        error ? reject(error) : resolve(),
      );
    });

  const app = fastify({ logger: false });
  app.post('/callbacks/:endpoint', async (request, reply) => {
    const opened = open(request.body);
    if (!opened) return reply.code(403).send({ code: 40300, msg: 'unauthenticated' });
    await publish(opened.plain, randomUUID());
    return { code: 0, msg: 'success' };
  });
  const [host, port] = process.env.LISTEN.split(':');
  await app.listen({ host, port: Number(port) });
}

const processes = Number(process.env.PROCESSES ?? 1);
if (processes > 1 && cluster.isPrimary) {
  for (let started = 0; started < processes; started += 1) cluster.fork();
  process.on('SIGTERM', () => process.exit(0)); // the workers notice that the channel to us is gone
} else {
  serve().catch((error) => {
    console.error(error);
    process.exit(1);
  });
}
