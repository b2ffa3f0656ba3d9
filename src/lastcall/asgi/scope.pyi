from typing import Any, final

@final
class HTTPScopes:
    root_path: str
    def __init__(
        self,
        *,
        scheme: str = "http",
        root_path: str = "",
        tls: dict[str, Any] | None = None,
        state: dict[str, Any] | None = None,
        spec_version: str = "2.5",
    ) -> None: ...
