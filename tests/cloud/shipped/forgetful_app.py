"""An app that needs this project and ships only itself."""

import modal

from gx.core.errors import GxError

app = modal.App("forgetful")


@app.cls(image=modal.Image.debian_slim())
class Worker:
    @modal.method()
    async def name(self) -> str:
        return GxError.__name__
