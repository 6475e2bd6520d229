// A worker for countersign's commands, with RabbitMQ's amqp-client. See ../README.md.

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.MessageDigest;
import java.security.Signature;
import java.security.spec.X509EncodedKeySpec;
import java.util.Base64;
import java.util.Collections;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public class Worker {
    private static final int PREFETCH = 20;
    private static final Set<String> ACTIONS = Set.of("approve", "reject", "custom");
    private static final ObjectMapper JSON =
            new ObjectMapper().enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);

    /** Forgets with the process, and the oldest beyond 100 000. In earnest: a table with a unique message_id, written in
     *  the transaction that changes the task. */
    private static final Set<String> handled = Collections.newSetFromMap(new LinkedHashMap<>() {
        @Override protected boolean removeEldestEntry(Map.Entry<String, Boolean> eldest) {
            return size() > 100_000;
        }
    });

    private static volatile boolean stopping;

    /** The message is no command. */
    private static class Poison extends Exception {
        Poison(String problem) { super(problem); }
    }

    /** If there are any, only what one of them has signed is taken: whsec_… or whpk_…, separated by blanks. Two while
     *  rotating. */
    private static final List<String> KEYS =
            List.of(System.getenv().getOrDefault("VERIFY_KEYS", "").split(" ")).stream().filter(key -> !key.isBlank()).toList();

    /** What all Ed25519 public keys begin with, before their 32 bytes (RFC 8410). */
    private static final byte[] ED25519 = HexFormat.of().parseHex("302a300506032b6570032100");

    private static byte[] joined(byte[] head, byte[] rest) {
        ByteArrayOutputStream both = new ByteArrayOutputStream();
        both.writeBytes(head);
        both.writeBytes(rest);
        return both.toByteArray();
    }

    /** In Java without a library. Maven Central has com.standardwebhooks:standardwebhooks for HMAC-SHA256: use its `sign`, since
     *  its `verify` refuses what is older than five minutes, and a command may wait in a queue for days. */
    private static boolean signedBy(String key, byte[] content, String signature) throws GeneralSecurityException {
        String[] parts = signature.split(",", 2);
        if (parts.length < 2) return false;
        byte[] given, known = Base64.getDecoder().decode(key.substring(key.indexOf('_') + 1));
        try {
            given = Base64.getDecoder().decode(parts[1]);
        } catch (IllegalArgumentException problem) {
            return false;
        }
        if (key.startsWith("whsec_") && parts[0].equals("v1")) {
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(new SecretKeySpec(known, "HmacSHA256"));
            return MessageDigest.isEqual(mac.doFinal(content), given);
        }
        if (!key.startsWith("whpk_") || !parts[0].equals("v1a") || given.length != 64) return false;
        Signature verifier = Signature.getInstance("Ed25519");
        verifier.initVerify(KeyFactory.getInstance("Ed25519").generatePublic(new X509EncodedKeySpec(joined(ED25519, known))));
        verifier.update(content);
        return verifier.verify(given);
    }

    /** Throws unless one of the keys has signed the message. Headers other than these three are not signed. */
    private static void verify(Delivery message) throws Poison {
        Map<String, Object> headers = message.getProperties().getHeaders();
        if (headers == null) headers = Map.of();
        Object id = headers.get("webhook-id"), time = headers.get("webhook-timestamp"), all = headers.get("webhook-signature");
        if (id == null || time == null || all == null) throw new Poison("not signed");
        byte[] content = joined((id + "." + time + ".").getBytes(StandardCharsets.UTF_8), message.getBody());
        for (String signature : all.toString().split(" ")) {
            for (String key : KEYS) {
                try {
                    if (signedBy(key, content, signature)) return;
                } catch (GeneralSecurityException problem) {
                    // A signature that is none, or one by another key.
                }
            }
        }
        throw new Poison("not signed by a key that is known here");
    }

    private static JsonNode read(Delivery message) throws Poison {
        if (!KEYS.isEmpty()) verify(message);
        JsonNode command;
        try {
            command = JSON.readTree(message.getBody());
        } catch (JsonProcessingException problem) {
            throw new Poison("not JSON");
        } catch (IOException problem) {
            throw new Poison("not UTF-8");
        }
        if (command == null || !"approval.command/1".equals(command.path("schema").asText())) {
            throw new Poison("not an approval.command/1");
        }
        if (!ACTIONS.contains(command.path("action").asText())) throw new Poison("no action that is known here");
        if (!command.path("task").isObject()
                || !command.path("command_id").asText().equals(message.getProperties().getMessageId())) {
            throw new Poison("not a whole command");
        }
        return command;
    }

    /** Tell your approval system.
     *
     *  If `repeats` is set, the same decision came before, as the command of that id: act only if your task has been opened
     *  again since; if not, it is a replay: change nothing, and report `refused`. `conflicts_with` names an opposite decision of
     *  the same operator: the later one counts, unless it repeats one that is older still. */
    private static void act(JsonNode command) {}

    /** Tells countersign, which shows it to the approver; see ../python-pika/worker.py for all that can be told. To tell it
     *  again changes nothing. Throws if it is not in the queue then: the worker ends, and the command comes again. */
    private static void report(Channel channel, String queue, JsonNode command) throws Exception {
        ObjectNode outcome = JSON.createObjectNode();
        outcome.put("schema", "approval.outcome/1");
        outcome.put("command_id", command.get("command_id").asText());
        outcome.put("outcome", "applied");
        outcome.putNull("status").putNull("message").putNull("instance");
        AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder()
                .contentType("application/json").contentEncoding("utf-8").type("approval.outcome.v1").deliveryMode(2).build();
        returned = false;
        channel.basicPublish("countersign.outcomes", queue, true, properties, JSON.writeValueAsBytes(outcome));
        channel.waitForConfirmsOrDie(30_000);
        if (returned) throw new IOException("there is no queue " + queue);   // told before the confirm
    }

    private static volatile boolean returned;

    private static String handle(Delivery message, JsonNode command) {
        String id = message.getProperties().getMessageId();
        boolean fresh = !handled.contains(id);
        if (fresh) {
            act(command);
            handled.add(id);
        }
        String line = (fresh ? "handled " : "duplicate ") + id + " " + command.get("action").asText() + " "
                + command.get("task").path("task_id").asText();
        for (String earlier : List.of("repeats", "conflicts_with")) {
            if (command.hasNonNull(earlier)) line += " " + earlier + " " + command.get(earlier).asText();
        }
        return line;
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, String> options = new HashMap<>(Map.of("--queue", "countersign.commands"));
        for (int at = 0; at + 1 < arguments.length; at += 2) options.put(arguments[at], arguments[at + 1]);
        int count = Integer.parseInt(options.getOrDefault("--count", "0"));       // end after so many messages
        double idle = Double.parseDouble(options.getOrDefault("--idle", "0"));    // or seconds without one

        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(System.getenv().getOrDefault("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f"));
        Connection connection = factory.newConnection("countersign example");
        Channel channel = connection.createChannel();
        channel.basicQos(PREFETCH);   // without it the broker would hand over the whole queue

        String reports = options.get("--report");   // tell what became of each command: countersign.outcomes
        channel.confirmSelect();
        channel.addReturnListener(message -> returned = true);

        BlockingQueue<Delivery> inbox = new LinkedBlockingQueue<>();
        String consumer = channel.basicConsume(options.get("--queue"), false,
                (tag, message) -> inbox.add(message),
                tag -> stopping = true);   // the queue was deleted
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {   // SIGTERM, Ctrl-C: let main end in order
            stopping = true;
            try { main.join(10_000); } catch (InterruptedException ended) { /* the process ends anyway */ }
        }));

        int seen = 0;
        long last = System.nanoTime();
        while (!stopping && (count == 0 || seen < count)) {
            Delivery message = inbox.poll(200, TimeUnit.MILLISECONDS);
            if (message == null) {
                if (!connection.isOpen()) throw new IOException("the broker is away");   // systemd starts it again
                if (idle > 0 && System.nanoTime() - last > idle * 1e9) break;
                continue;
            }
            long tag = message.getEnvelope().getDeliveryTag();
            try {
                JsonNode command = read(message);
                String line = handle(message, command);
                if (reports != null) report(channel, reports, command);
                System.out.println(line);
                channel.basicAck(tag, false);
            } catch (Poison poison) {
                // Not to be had again, but not lost either: it goes to countersign.dead.
                System.out.println("rejected " + message.getProperties().getMessageId() + ": " + poison.getMessage());
                channel.basicReject(tag, false);
            }
            seen++;
            last = System.nanoTime();
        }
        if (channel.isOpen()) {
            channel.basicCancel(consumer);
            channel.close();   // gives back what was fetched and not begun
        }
        connection.close();
    }
}
