"""One FastAPI route that answers JSON, as its tutorial writes it. Workload fastapi."""

from __future__ import annotations

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def root() -> dict[str, str]:
    """Answer `{"message":"Hello, World!"}`."""
    return {"message": "Hello, World!"}
