"""The node's side: sends back what it received plus its own number, and does no other work."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Returns the vector plus the node's number, so that the sum shows who contributed."""
    received = message.content["vector"]["values"].numpy()
    sent = received + np.float32(context.node_config["number"])
    record = ArrayRecord({"values": Array(sent)})
    return Message(content=RecordDict({"vector": record}), reply_to=message)
