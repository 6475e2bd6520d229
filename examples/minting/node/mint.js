// Prints a context for countersign.   usage: node mint.js HS256|EdDSA KEY_FILE KID
import { readFileSync } from "node:fs";
import { SignJWT, importPKCS8 } from "jose";

const [algorithm, keyFile, kid] = process.argv.slice(2);
const text = readFileSync(keyFile, "ascii").trim(); // HS256: the secret; EdDSA: a private key in PEM (PKCS#8)
const key = algorithm === "EdDSA" ? await importPKCS8(text, "EdDSA") : new TextEncoder().encode(text);
const token = await new SignJWT({
  instance_id: "PO-77",
  task_id: "n2",
  round: "1", // a new one whenever the task is opened again
  operators: ["zhang3"], // user_id of those who may decide
  actions: ["APPROVE", "REJECT"],
  endpoint: "purchase",
  data: { amount: "12000.00" }, // for your worker
})
  .setProtectedHeader({ alg: algorithm, kid })
  .setExpirationTime("72h")
  .sign(key);
console.log(token);
