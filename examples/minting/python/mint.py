#!/usr/bin/env python3
"""Prints a context for countersign.   usage: mint.py HS256|EdDSA KEY_FILE KID"""

import sys
import time

import jwt  # PyJWT, with cryptography for EdDSA

algorithm, key_file, kid = sys.argv[1:]
key = open(key_file, encoding="ascii").read().strip()  # HS256: the secret; EdDSA: a private key in PEM (PKCS#8)
claims = {
    "instance_id": "PO-77",
    "task_id": "n2",
    "round": "1",  # a new one whenever the task is opened again
    "operators": ["zhang3"],  # user_id of those who may decide
    "actions": ["APPROVE", "REJECT"],
    "endpoint": "purchase",
    "exp": int(time.time()) + 72 * 3600,
    "data": {"amount": "12000.00"},  # for your worker
}
print(jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid}))
