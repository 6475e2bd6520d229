"""A peer: FastAPI, aio-pika, cryptography. Answers after the broker's confirm of a persistent message.

environment: AMQP_URL, EXCHANGE, TOKEN, KEY; run by uvicorn, which is told where to listen
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import uuid
from contextlib import asynccontextmanager

import aio_pika
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

KEY = hashlib.sha256(os.environ["KEY"].encode()).digest()
TOKEN = os.environ["TOKEN"]


@asynccontextmanager
async def lifespan(app: FastAPI):
    connection = await aio_pika.connect_robust(os.environ["AMQP_URL"])
    async with connection:
        # Confirms are on by default: publish() returns when the broker has confirmed.
        channel = await connection.channel()
        app.state.exchange = await channel.get_exchange(os.environ["EXCHANGE"], ensure=False)
        yield


app = FastAPI(lifespan=lifespan)


def opened(body: bytes) -> bytes | None:
    try:
        sealed = base64.b64decode(json.loads(body)["encrypt"])
        decryptor = Cipher(algorithms.AES(KEY), modes.CBC(sealed[:16])).decryptor()
        unpadder = PKCS7(128).unpadder()
        plain = unpadder.update(decryptor.update(sealed[16:]) + decryptor.finalize()) + unpadder.finalize()
        token = json.loads(plain)["token"]
        return plain if hmac.compare_digest(token.encode(), TOKEN.encode()) else None
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error):
        return None


@app.post("/callbacks/{endpoint}")
async def callback(endpoint: str, request: Request):
    plain = opened(await request.body())
    if plain is None:
        return JSONResponse({"code": 40300, "msg": "unauthenticated"}, status_code=403)
    message = aio_pika.Message(
        plain,
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=str(uuid.uuid4()),
    )
    await app.state.exchange.publish(message, routing_key="approval.bench.-.approve", mandatory=True)
    return JSONResponse({"code": 0, "msg": "success"})
