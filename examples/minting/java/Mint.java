// Prints a context for countersign.   usage: java Mint.java HS256|EdDSA KEY_FILE KID
//
// With the JDK (17 or newer) alone, because a JWT is no more than this. Where you have nimbus-jose-jwt or jjwt anyway,
// use it: claims, alg and kid are the same.

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.PrivateKey;
import java.security.Signature;
import java.security.spec.PKCS8EncodedKeySpec;
import java.time.Instant;
import java.util.Base64;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public class Mint {
    public static void main(String[] arguments) throws Exception {
        String algorithm = arguments[0], key = Files.readString(Path.of(arguments[1])).strip(), kid = arguments[2];
        // Build the JSON with your usual library: an id may hold a quote.
        String header = "{\"alg\":\"" + algorithm + "\",\"typ\":\"JWT\",\"kid\":\"" + kid + "\"}";
        String claims = """
                {"instance_id": "PO-77", "task_id": "n2",
                 "round": "1",
                 "operators": ["zhang3"], "actions": ["APPROVE", "REJECT"],
                 "endpoint": "purchase", "exp": %d,
                 "data": {"amount": "12000.00"}}""".formatted(Instant.now().getEpochSecond() + 72 * 3600);
        String signed = base64url(header.getBytes(StandardCharsets.UTF_8)) + "."
                + base64url(claims.getBytes(StandardCharsets.UTF_8));
        byte[] message = signed.getBytes(StandardCharsets.US_ASCII);
        byte[] signature = algorithm.equals("EdDSA") ? eddsa(key, message) : hs256(key, message);
        System.out.println(signed + "." + base64url(signature));
    }

    /** The secret is the text of the file. */
    private static byte[] hs256(String secret, byte[] message) throws Exception {
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(secret.getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
        return mac.doFinal(message);
    }

    /** A private key in PEM (PKCS#8). */
    private static byte[] eddsa(String pem, byte[] message) throws Exception {
        byte[] der = Base64.getMimeDecoder().decode(pem.replaceAll("-----[A-Z ]+-----", ""));
        PrivateKey key = KeyFactory.getInstance("Ed25519").generatePrivate(new PKCS8EncodedKeySpec(der));
        Signature signer = Signature.getInstance("Ed25519");
        signer.initSign(key);
        signer.update(message);
        return signer.sign();
    }

    private static String base64url(byte[] bytes) {
        return Base64.getUrlEncoder().withoutPadding().encodeToString(bytes);
    }
}
