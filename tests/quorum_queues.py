"""For tests/test_consumers.py: consumers of a quorum queue of RabbitMQ, which put messages back and reject them."""

from __future__ import annotations

# A message that is rejected goes to a queue that sends it back.
QUEUES = """
import os
from notes import note

queue, broker = os.environ["QUEUE"], os.environ["BROKER"]
quorum = {"x-queue-type": "quorum", "x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{queue}-wait"}
back = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue, "x-message-ttl": 100}
names = ["often", "rejected"]

def wanted(name):
    runs = note(name)
    return {1: "requeue" if name == "often" else "reject", 2: "requeue", 3: "ack"}[runs]
"""
PIKA = """
import pika
from queues import *

channel = pika.BlockingConnection(pika.URLParameters(broker)).channel()
channel.queue_declare(queue, durable=True, arguments=quorum)
channel.queue_declare(f"{queue}-wait", arguments=back)
for name in names:
    channel.basic_publish("", queue, b"", pika.BasicProperties(message_id=name))

def receive(channel, method, properties, body):
    found = wanted(properties.message_id)
    if found == "ack":
        channel.basic_ack(method.delivery_tag)
        names.remove(properties.message_id)
        if not names:
            channel.stop_consuming()
    else:
        channel.basic_nack(method.delivery_tag, requeue=found == "requeue")

channel.basic_consume(queue, receive)
channel.start_consuming()
"""
KOMBU = """
from kombu import Connection, Queue
from queues import *

mail = Queue(queue, routing_key=queue, queue_arguments=quorum)
wait = Queue(f"{queue}-wait", routing_key=f"{queue}-wait", queue_arguments=back)

def receive(body, message):
    name = message.properties["message_id"]
    found = wanted(name)
    getattr(message, found)()
    if found == "ack":
        names.remove(name)

with Connection(broker) as connection:
    for name in names:
        connection.Producer().publish({}, routing_key=queue, message_id=name, declare=[mail, wait])
    with connection.Consumer(mail, callbacks=[receive]):
        while names:
            connection.drain_events()
"""
ATTEMPTS = {"often": [1, 2, 3], "rejected": [1, 2, 3]}
