"""What a request can fail with, as HTTP and gRPC say it.

ServeError
+-- BadRequest         400  INVALID_ARGUMENT
+-- Unauthenticated    401  UNAUTHENTICATED
+-- UnknownModel       404  NOT_FOUND
+-- TooLarge           413  RESOURCE_EXHAUSTED
+-- Unsupported        415  INVALID_ARGUMENT
+-- StepFailed         500  INTERNAL
+-- NotOffered         501  UNIMPLEMENTED
+-- Overloaded         503  UNAVAILABLE, with the seconds after which to come back
|   +-- Stopping
+-- DeadlineExceeded   504  DEADLINE_EXCEEDED
"""

from __future__ import annotations

from framegate.contract import FramegateError


class ServeError(FramegateError):
    """A request that is answered by an error; `grpc` is the name of a grpc.StatusCode."""

    status = 500
    grpc = "INTERNAL"


class BadRequest(ServeError):
    """What was sent cannot be meant."""

    status, grpc = 400, "INVALID_ARGUMENT"


class Unauthenticated(ServeError):
    """No key, or a wrong one."""

    status, grpc = 401, "UNAUTHENTICATED"


class UnknownModel(ServeError):
    """A model or version that is not served here."""

    status, grpc = 404, "NOT_FOUND"


class TooLarge(ServeError):
    """Beyond a limit on size."""

    status, grpc = 413, "RESOURCE_EXHAUSTED"


class Unsupported(ServeError):
    """A kind of content that is not known here."""

    status, grpc = 415, "INVALID_ARGUMENT"


class StepFailed(ServeError):
    """The runtime raised an error: 500, INTERNAL."""


class NotOffered(ServeError):
    """Part of the protocol that is not served here, refused as Triton refuses it."""

    status, grpc = 501, "UNIMPLEMENTED"


class Overloaded(ServeError):
    """It would not make its deadline, or a cap is reached."""

    status, grpc = 503, "UNAVAILABLE"

    def __init__(self, text: str, retry_after_s: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Stopping(Overloaded):
    """New work, while the server is shutting down."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down; connect again, to another one", 1.0)


class DeadlineExceeded(ServeError):
    """Accepted, and too late."""

    status, grpc = 504, "DEADLINE_EXCEEDED"
