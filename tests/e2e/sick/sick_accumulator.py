"""The shipped accumulator, which lies beside this file as ``accumulator.py``, with one disease (see ``Disease``)."""

import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils
from accumulator import TritonPythonModel as Accumulator
from accumulator import control, refusal


class TritonPythonModel(Accumulator):
    """Suffers from what the parameter ``disease`` says."""

    def initialize(self, args):
        super().initialize(args)
        self.disease = json.loads(args["model_config"])["parameters"]["disease"]["string_value"]

    def execute(self, requests):
        responses = super().execute(requests)
        if self.disease == "swapped_in_batch":
            answered = [index for index, request in enumerate(requests) if control(request, "READY")]
            if len(answered) >= 2:
                first, second = answered[:2]
                responses[first], responses[second] = responses[second], responses[first]
        return responses

    def step(self, slot, request):
        if not control(request, "READY"):
            return super().step(slot, request)
        if self.disease == "shared_state":
            slot = 0
        left = self.states.get(slot)
        response = super().step(slot, request)
        if self.disease == "not_reset_at_start" and control(request, "START") and left is not None:
            return self.replace(slot, request, response, left)
        value = pb_utils.get_input_tensor_by_name(request, "INPUT").as_numpy()
        return self.spoil(slot, request, response) if value.flat[0] % 50 == 7 else response

    def spoil(self, slot, request, response):
        """What becomes of the right answer to a trigger."""
        match self.disease:
            case "off_by_one":
                return self.replace(slot, request, response, 1)
            case "missing_output":
                return pb_utils.InferenceResponse([])
            case "wrong_dtype":
                return answer(total_of(response).astype(np.int64))
            case "wrong_shape":
                return answer(np.repeat(total_of(response), 2, axis=-1))
            case "error_now_and_then":
                return refusal("sick on purpose")
            case "hangs":
                time.sleep(3600)
        return response

    def replace(self, slot, request, response, surplus):
        """Answer with ``surplus`` more, and go on from there."""
        total = total_of(response) + surplus
        total = total.astype(np.int32)
        if not control(request, "END"):
            self.keep(slot, total)
        return answer(total)


def total_of(response):
    return response.output_tensors()[0].as_numpy()


def answer(total):
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT", total)])
