"""Leads schemathesis past the door: what it generates would hardly ever name an endpoint or know a token.

Loaded through SCHEMATHESIS_HOOKS. Per generated callback it is decided, by a hash of what was generated and so
the same in each run with one seed, which endpoint is called, whether the body carries the right token, and
for the endpoint with a key whether the body is encrypted. The rest stays as generated.
"""

import base64
import copy
import hashlib
import json
import os
import subprocess

import schemathesis

PLAIN_TOKEN = os.environ["SCHEMATHESIS_PLAIN_TOKEN"]
ENCRYPTED_TOKEN = os.environ["SCHEMATHESIS_ENCRYPTED_TOKEN"]
ENCRYPTED_KEY = os.environ["SCHEMATHESIS_ENCRYPTED_KEY"]


def encrypt(fields: dict) -> dict:
    """The platform's encryption: base64(iv, AES-256-CBC with PKCS#7 under SHA-256 of the key)."""
    plain = json.dumps(fields, ensure_ascii=True).encode()
    iv = hashlib.sha256(plain).digest()[:16]
    key = hashlib.sha256(ENCRYPTED_KEY.encode()).digest()
    cipher = subprocess.run(
        ["openssl", "enc", "-aes-256-cbc", "-K", key.hex(), "-iv", iv.hex()],
        input=plain,
        capture_output=True,
        check=True,
    )
    return {"encrypt": base64.b64encode(iv + cipher.stdout).decode()}


@schemathesis.hook
def before_call(context, case, kwargs):
    """Fills in endpoint and token for most of the generated callbacks; leaves every other request alone."""
    if case.method.upper() != "POST" or not case.operation.path.startswith("/callbacks/"):
        return
    dice = hashlib.sha256(repr((case.path_parameters, case.body)).encode()).digest()
    if not isinstance(case.body, dict) or dice[0] < 26:
        return  # one in ten goes out as it was generated
    # Hypothesis keeps and reuses the objects that it generates.
    fields = copy.deepcopy(case.body)
    encrypted = dice[1] < 96
    if dice[2] < 192:
        fields.pop("encrypt", None)
        fields["token"] = ENCRYPTED_TOKEN if encrypted else PLAIN_TOKEN
    if dice[3] < 192:
        fields["action_type"] = ("APPROVE", "REJECT")[dice[3] % 2]
    case.path_parameters = {"endpoint": "encrypted" if encrypted else "plain"}
    case.body = encrypt(fields) if encrypted else fields
