"""A stateful model: every step answers with the sum of its sequence so far, in the tensor's own datatype.

Triton's Python backend loads this file into a stub process, one per instance. It has to do with the standard
library, numpy and ``triton_python_backend_utils``; what differs between models arrives as ``parameters`` of
config.pbtxt:

``state_key``
    ``slot``: state is kept per index in the batch, which the direct strategy ties to one sequence. Triton
    forgets a correlation ID when END is *enqueued*, so a START of the same ID right behind it runs in another
    slot at the same time; per-slot state keeps the two apart. ``correlation_id``: for the oldest strategy,
    whose batches hold sequences in any order.
``execute_delay_us``
    How long each call of ``execute`` takes, however many requests it holds.
"""

import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils

LIVE_STATES = 4096
"""Most states kept, far above any number of slots. What falls out, least recently used first, are sequences
that the server dropped as idle, of which it never tells the model."""


class TritonPythonModel:
    """The interface that the Python backend asks for."""

    def initialize(self, args):
        """Read the parameters of this model; ``args`` holds its whole configuration as JSON."""
        config = json.loads(args["model_config"])
        parameters = {key: entry["string_value"] for key, entry in config["parameters"].items()}
        self.keyed_by_slot = parameters["state_key"] == "slot"
        self.delay_s = int(parameters["execute_delay_us"]) / 1e6
        self.is_text = config["output"][0]["data_type"] == "TYPE_STRING"
        self.states = {}

    def execute(self, requests):
        """Answer one batch, in order."""
        if self.delay_s:
            time.sleep(self.delay_s)
        return [self.step(slot, request) for slot, request in enumerate(requests)]

    def step(self, slot, request):
        """Answer one request, which the sequence batcher may have made up to fill an empty slot."""
        if not control(request, "READY"):
            return pb_utils.InferenceResponse([])  # its INPUT is uninitialised memory: touch nothing
        key = slot if self.keyed_by_slot else control(request, "CORRID")
        value = pb_utils.get_input_tensor_by_name(request, "INPUT").as_numpy()
        before = self.states.pop(key, None)
        if control(request, "START"):
            total = value
        elif before is None:
            return refusal(f"step without START reached the model (state key {key})")
        else:
            total = self.add(before, value)
        if not control(request, "END"):
            self.keep(key, total)
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT", total)])

    def add(self, before, value):
        """Add in the datatype of the tensors: arrays of integers wrap around, decimal texts have no bound."""
        if not self.is_text:
            return before + value
        texts = [str(int(a) + int(b)).encode() for a, b in zip(before.flat, value.flat, strict=True)]
        return np.array(texts, dtype=object).reshape(value.shape)

    def keep(self, key, total):
        """Remember the state as the most recently used."""
        self.states[key] = total
        if len(self.states) > LIVE_STATES:
            del self.states[next(iter(self.states))]


def control(request, name):
    """The scalar that the sequence batcher put into a control tensor."""
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy().flat[0]


def refusal(text):
    """An error as the answer to one request; the rest of the batch is not touched."""
    return pb_utils.InferenceResponse([], error=pb_utils.TritonError(text))
