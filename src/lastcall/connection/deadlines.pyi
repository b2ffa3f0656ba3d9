from typing import final

class Timed: ...

@final
class Deadlines:
    def __init__(
        self,
        header: float = 10.0,
        body: float = 60.0,
        keep_alive: float = 75.0,
        write: float = 60.0,
        linger: float = 1.0,
        discard: float = 5.0,
        ws_ping: float = ...,
        ws_pong: float = ...,
        age: float = ...,
        request: float = ...,
    ) -> None: ...
