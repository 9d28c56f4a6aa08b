"""Why a gateway refuses, as an error that any framework's adapter can turn into an answer."""

from ernie_async.errors import ErnieError
from ernie_async.sansio.relay import Fault

__all__ = ["GatewayError"]


class GatewayError(ErnieError):
    """The gateway says no, before any byte of an answer.

    Attributes:
        fault: Status, code and words.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault

    @classmethod
    def unknown_stream(cls) -> "GatewayError":
        """There is no such stream, or it is somebody else's, which is not told apart."""
        return cls(Fault(404, "not_found", "no such stream, or it is kept no longer"))

    @classmethod
    def overloaded(cls, message: str, retry_after: float = 1.0) -> "GatewayError":
        """There is no room at the moment."""
        return cls(Fault(503, "overloaded", message, retryable=True, retry_after=retry_after))
