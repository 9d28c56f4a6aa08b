"""The hand-made client with the models of `ernie_async`: what typed answers cost alone.

It refuses a bad request and knows every field of an answer. All else it lacks like the other one.
"""

from pydantic_core import to_json

from benchmarks.contenders import MODEL, PROMPT, hand_made
from ernie_async import ChatChunk, ChatCompletion, ChatRequest, user

for _model in ChatChunk, ChatCompletion:
    _model.model_rebuild()  # they are built at first use otherwise


class Client(hand_made.Client):
    read_chunk = ChatChunk.__pydantic_validator__.validate_json
    read_completion = ChatCompletion.__pydantic_validator__.validate_json

    def request(self, *, stream: bool = False) -> bytes:
        asked = ChatRequest(model=MODEL, messages=[user(PROMPT)]).model_dump(exclude_unset=True)
        return to_json({**asked, "stream": True} if stream else asked)
